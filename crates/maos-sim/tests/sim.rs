//! The laws hold in a hundred worlds, and the same seed is the same world.

use maos_sim::{Report, run, run_traced};

const STEPS: u64 = 400;

#[test]
fn the_laws_hold_whatever_goes_wrong() {
    let mut total = Report::default();
    for seed in 10_000..10_100 {
        match run(seed, STEPS) {
            Ok(report) => total.add(&report),
            Err(why) => panic!(
                "seed {seed}: {why}\nreplay: cargo run --release -p maos-sim -- --seed {seed}"
            ),
        }
    }
    // A world in which little happens shows little.
    assert!(total.crashes > 100, "{total:?}");
    assert!(total.completions > 1_000, "{total:?}");
    assert!(total.revivals > 50, "{total:?}");
    assert!(total.built_in > 200, "{total:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let traced = |seed| run_traced(seed, STEPS).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    for seed in 0..10 {
        let ((report, trace), (again, other)) = (traced(seed), traced(seed));
        if let Some(place) = trace.first_difference(&other) {
            panic!("seed {seed}: two runs differ at {place}");
        }
        assert_eq!((report, trace), (again, other));
        assert_eq!(run(seed, STEPS), Ok(report), "what is kept of a run changes it");
    }
    let (one, another) = (traced(1).1, traced(2).1);
    assert!(one.first_difference(&another).is_some(), "another seed is another run");
    for kind in ["append", "reply", "effect"] {
        assert!(one.entries.iter().any(|entry| entry.kind == kind), "{kind} is not compared");
    }
}
