//! A task's row as it is encoded: flat, each field under its number, in the form of all releases.
//!
//! The record in memory is another, so that it is small; this is the only place that knows both.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use minicbor::decode::Error;
use minicbor::encode::Write;
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::{
    CollectRecord, HeldAttempt, Links, PastAttempt, PastEnd, PlanRecord, Stage, TaskRecord, Times,
    Trail,
};
use crate::event::Failure;
use crate::ids::{AgentId, Attempt, TaskId};
use crate::payload::shared;
use crate::spec::{Artifact, TaskSpec};

/// What is written.
#[derive(Encode)]
struct Written<'r> {
    #[n(0)]
    id: TaskId,
    #[n(1)]
    spec: &'r TaskSpec,
    #[n(2)]
    plan: &'r PlanRecord,
    #[n(3)]
    index: u32,
    #[n(4)]
    parent: Option<TaskId>,
    #[n(5)]
    depends_on: &'r [TaskId],
    #[n(6)]
    subtasks: &'r [TaskId],
    #[n(7)]
    collect: Option<CollectRecord>,
    #[n(8)]
    stage: &'r Stage,
    #[n(9)]
    attempt: Attempt,
    #[n(10)]
    retries_used: u32,
    #[n(11)]
    losses: u32,
    #[n(12)]
    last_failure: Option<&'r Failure>,
    #[n(13)]
    times: Times,
    #[n(14)]
    stopping: &'r [HeldAttempt],
    #[n(15)]
    ran_by: Option<AgentId>,
    #[n(16)]
    past: &'r [PastAttempt],
    #[n(17)]
    artifacts: &'r [Artifact],
    #[n(18)]
    amended: bool,
    #[n(19)]
    ends: &'r [PastEnd],
}

/// What is read: the same numbers.
#[derive(Decode)]
struct Read {
    #[n(0)]
    id: TaskId,
    #[cbor(n(1), with = "shared")]
    spec: Arc<TaskSpec>,
    #[cbor(n(2), with = "shared")]
    plan: Arc<PlanRecord>,
    #[n(3)]
    index: u32,
    #[n(4)]
    parent: Option<TaskId>,
    #[n(5)]
    depends_on: Box<[TaskId]>,
    #[n(6)]
    subtasks: Box<[TaskId]>,
    #[n(7)]
    collect: Option<CollectRecord>,
    #[n(8)]
    stage: Stage,
    #[n(9)]
    attempt: Attempt,
    #[n(10)]
    retries_used: u32,
    #[n(11)]
    losses: u32,
    #[n(12)]
    last_failure: Option<Failure>,
    #[n(13)]
    times: Times,
    #[n(14)]
    stopping: Box<[HeldAttempt]>,
    #[n(15)]
    ran_by: Option<AgentId>,
    #[cbor(n(16), default)]
    past: Vec<PastAttempt>,
    #[cbor(n(17), default)]
    artifacts: Vec<Artifact>,
    #[cbor(n(18), default)]
    amended: bool,
    #[cbor(n(19), default)]
    ends: Vec<PastEnd>,
}

impl<C> Encode<C> for TaskRecord {
    fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let written = Written {
            id: self.id,
            spec: &self.spec,
            plan: &self.plan,
            index: self.index,
            parent: self.parent(),
            depends_on: self.depends_on(),
            subtasks: self.subtasks(),
            collect: self.collect(),
            stage: &self.stage,
            attempt: self.attempt,
            retries_used: self.retries_used,
            losses: self.losses,
            last_failure: self.last_failure(),
            times: self.times,
            stopping: &self.stopping,
            ran_by: self.ran_by,
            past: self.past(),
            artifacts: self.artifacts(),
            amended: self.amended(),
            ends: self.ends(),
        };
        written.encode(encoder, context)
    }
}

impl<'b, C> Decode<'b, C> for TaskRecord {
    fn decode(decoder: &mut Decoder<'b>, context: &mut C) -> Result<TaskRecord, Error> {
        let read = Read::decode(decoder, context)?;
        let Read { parent, depends_on, subtasks, collect, .. } = read;
        let Read { last_failure, past, artifacts, amended, ends, .. } = read;
        Ok(TaskRecord {
            id: read.id,
            spec: read.spec,
            plan: read.plan,
            index: read.index,
            attempt: read.attempt,
            retries_used: read.retries_used,
            losses: read.losses,
            stage: read.stage,
            times: read.times,
            ran_by: read.ran_by,
            stopping: read.stopping,
            links: Links { parent, depends_on, subtasks, collect }.boxed(),
            trail: Trail { last_failure, past, ends, artifacts, amended }.boxed(),
        })
    }
}
