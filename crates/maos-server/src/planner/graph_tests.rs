//! Random graphs, nested and tangled, against a model that runs them step by step.

use serde_json::{Value, json};

use super::*;

/// A task of the model: its parent, and what it depends on.
struct Node {
    parent: Option<usize>,
    depends_on: Vec<usize>,
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from((self.0 >> 33) % bound).unwrap()
    }
}

fn grow(seed: u64) -> Vec<Node> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let count = 2 + random.below(9);
    let mut nodes: Vec<Node> = Vec::new();
    for index in 0..count {
        let nested = index > 0 && random.below(2) == 0;
        let parent = nested.then(|| random.below(index as u64));
        let wants = random.below(3);
        // Mostly on earlier ones, so that about as many graphs can end as cannot.
        let mut other = || {
            let bound = if random.below(8) == 0 { count } else { index.max(1) };
            random.below(bound as u64)
        };
        let depends_on = (0..wants).map(|_| other()).collect();
        nodes.push(Node { parent, depends_on });
    }
    nodes
}

fn above(nodes: &[Node], index: usize) -> impl Iterator<Item = usize> + '_ {
    std::iter::successors(Some(index), |index| nodes[*index].parent)
}

/// Entries below `parent`, as a submission has them.
fn entries(nodes: &[Node], parent: Option<usize>) -> Vec<Value> {
    let below = (0..nodes.len()).filter(|index| nodes[*index].parent == parent);
    below
        .map(|index| {
            let keys: Vec<String> =
                nodes[index].depends_on.iter().map(|other| format!("k{other}")).collect();
            let mut entry = json!({"key": format!("k{index}"), "depends_on": keys});
            let inner = entries(nodes, Some(index));
            if !inner.is_empty() {
                entry["subtasks"] = inner.into();
            }
            entry
        })
        .collect()
}

/// Runs leaves until nothing moves; `may_start` decides which. Returns what has ended.
fn run(nodes: &[Node], may_start: impl Fn(usize, &[bool]) -> bool) -> Vec<bool> {
    let mut ended = vec![false; nodes.len()];
    loop {
        let next = (0..nodes.len()).find(|index| {
            let mut below = (0..nodes.len()).filter(|other| nodes[*other].parent == Some(*index));
            let is_leaf = below.clone().next().is_none();
            let ready = if is_leaf { may_start(*index, &ended) } else { below.all(|b| ended[b]) };
            !ended[*index] && ready
        });
        match next {
            Some(index) => ended[index] = true,
            None => return ended,
        }
    }
}

#[test]
fn exactly_the_graphs_that_can_end_are_accepted_and_parents_hold_back_what_is_below() {
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..3_000 {
        let nodes = grow(seed);
        let may_start = |index: usize, ended: &[bool]| {
            above(&nodes, index).all(|task| nodes[task].depends_on.iter().all(|d| ended[*d]))
        };
        let can_end = run(&nodes, may_start).iter().all(|ended| *ended);
        let body = json!({"name": "n", "subtasks": entries(&nodes, None)}).to_string();
        let planned = match planned_within(&body, &bounds(3_600)) {
            Ok(planned) => planned.plan,
            Err(error) => {
                assert_eq!(error.code, ErrorCode::PlanCycle, "seed {seed}: {body}");
                assert!(!can_end, "seed {seed}: {error}: {body}");
                refused += 1;
                continue;
            }
        };
        assert!(can_end, "seed {seed}: {body}");
        accepted += 1;
        // The core looks at the dependencies of leaves only.
        let number = |index: u32| {
            let key = planned.tasks[index as usize].spec.rare().key.as_deref().unwrap();
            key[1..].parse::<usize>().unwrap()
        };
        let mut edges = vec![Vec::new(); nodes.len()];
        for (index, task) in planned.tasks.iter().enumerate().skip(1) {
            assert!(task.parent.unwrap() < index as u32, "seed {seed}: parents come first");
            let at = number(index as u32);
            edges[at] = task.depends_on.iter().map(|other| number(*other)).collect();
        }
        let ended = run(&nodes, |index, ended| {
            let starts = edges[index].iter().all(|other| ended[*other]);
            assert!(
                !starts || may_start(index, ended),
                "seed {seed}: k{index} starts early: {body}"
            );
            starts
        });
        assert!(ended.iter().all(|ended| *ended), "seed {seed}: {body}");
    }
    assert!(accepted > 300 && refused > 300, "{accepted} accepted, {refused} refused");
}
