//! Every bound of the system, in one place. At a bound the system refuses; it never grows past it
//! and never drops in silence.
//!
//! Bounds on bytes and counts of one request are the wire contract's; the others are ours, with
//! their reason.

/// Most bytes of one submission's body.
pub const SUBMISSION_BYTES_MAX: u64 = 4 << 20;
/// Most bytes of a body with many submissions.
pub const BATCH_BYTES_MAX: u64 = 64 << 20;
/// Most submissions in one body.
pub const BATCH_TASKS_MAX: u32 = 10_000;
/// Most bytes of one task's result.
pub const RESULT_BYTES_MAX: u64 = 16 << 20;
/// Deepest nesting of lists and objects in a body or a result.
pub const NESTING_MAX: u32 = 64;
/// Most tasks under one root.
pub const PLAN_TASKS_MAX: u32 = 10_000;
/// Deepest nesting of tasks in a plan, the root not counted.
pub const PLAN_DEPTH_MAX: u32 = 32;
/// Most characters of a name.
pub const NAME_CHARS_MAX: u32 = 500;
/// Most characters of a description.
pub const DESCRIPTION_CHARS_MAX: u32 = 100_000;
/// Most tags of a task or an agent.
pub const TAGS_MAX: u32 = 100;
/// Most characters of one tag, capability, key, agent type or resource kind.
pub const WORD_CHARS_MAX: u32 = 200;
/// Most capabilities of an agent, and most that a task may ask for.
pub const CAPABILITIES_MAX: u32 = 64;
/// Most kinds of resources in one requirement.
pub const RESOURCE_KINDS_MAX: u32 = 32;
/// Most retries a submission may ask for.
pub const RETRIES_MAX: u32 = 100;
/// Longest run of one attempt, unless configured otherwise.
pub const TASK_TIMEOUT_SECONDS_MAX: u64 = 3_600;
/// Most attempts of one task at once on one agent.
pub const AGENT_SLOTS_MAX: u32 = 10_000;
/// Most agents that may be known at once, workers included.
pub const AGENTS_MAX: u32 = 20_000;
/// Most characters of an error that an agent reports; more is cut, and says so.
pub const ERROR_CHARS_MAX: u32 = 16_384;
/// Payloads up to this size live in the journal; larger ones in the blob store, before their event.
pub const INLINE_PAYLOAD_BYTES_MAX: u64 = 1_024;
/// Attempts a task may lose with their agent, node or server before it is given up.
pub const LOSSES_MAX: u32 = 5;
/// A task that does not fit and has waited this long has freed resources kept for it.
pub const HOLD_AFTER_MS: u64 = 30_000;
/// Time that a cancelled or timed-out attempt has to end by itself.
pub const STOP_GRACE_MS: u64 = 5_000;
/// Wait before the first retry; doubled for each further one.
pub const BACKOFF_FIRST_MS: u64 = 1_000;
/// Longest wait before a retry, jitter included.
pub const BACKOFF_MAX_MS: u64 = 300_000;
/// How long an idempotency key is remembered.
pub const IDEMPOTENCY_MS: u64 = 24 * 3_600 * 1_000;
/// Most idempotency keys that are remembered at once.
pub const IDEMPOTENCY_KEYS_MAX: u32 = 1_000_000;
/// Most events that follow from one command within one step. The rest follow in the next step.
pub const STEP_EVENTS_MAX: u32 = 4_096;
/// Most distinct demands (capabilities, agent, resources, keys) that may wait at once.
pub const LANES_MAX: u32 = 65_536;
/// Most keys for which something may be set.
pub const KEY_SETTINGS_MAX: u32 = 10_000;
/// Most turns that a fairness key may get while another gets one.
pub const WEIGHT_MAX: u32 = 1_000;
/// Tasks that the policy `best_fit` chooses from.
pub const BEST_FIT_AMONG: u32 = 64;
/// Unsuccessful attempts of one task that are remembered; older ones only count.
pub const ATTEMPTS_KEPT: u32 = 16;
/// Ends of one task, before it was tried anew, that are remembered.
pub const ENDS_KEPT: usize = 16;
/// Most files that agents make beside one task's result.
pub const ARTIFACTS_MAX: u32 = 100;
/// Most small documents that the engine keeps for the shell, all kinds together: schedules,
/// resources, callbacks and the like.
pub const ENTRIES_MAX: u32 = 100_000;
/// Most requesters that hold resources outside of attempts.
pub const RESERVATIONS_MAX: u32 = 1_000;
/// Most live tasks of one engine.
pub const LIVE_TASKS_MAX: u32 = 5_000_000;
/// An agent that has not been heard of for this long is lost.
pub const HEARTBEAT_TIMEOUT_MS: u64 = 90_000;
/// Steps whose events are not durable yet; at this many intake stops until the journal catches up.
pub const INFLIGHT_STEPS_MAX: u32 = 65_536;

const _: () = assert!(SUBMISSION_BYTES_MAX < BATCH_BYTES_MAX);
const _: () = assert!(INLINE_PAYLOAD_BYTES_MAX < SUBMISSION_BYTES_MAX);
const _: () = assert!(BACKOFF_FIRST_MS < BACKOFF_MAX_MS);
