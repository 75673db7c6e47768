//! Runs many seeds, or one again that found something.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use maos_sim::{Report, run};

const USAGE: &str = "maos-sim [--seeds N=200] [--seed K] [--steps M=400]";

struct Options {
    seeds: u64,
    seed: Option<u64>,
    steps: u64,
}

fn options(mut words: impl Iterator<Item = String>) -> anyhow::Result<Options> {
    let mut options = Options { seeds: 200, seed: None, steps: 400 };
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("`{word}` needs a value: {USAGE}"))?;
        let number = value.parse().with_context(|| format!("`{value}` is not a number"))?;
        match word.as_str() {
            "--seeds" => options.seeds = number,
            "--seed" => options.seed = Some(number),
            "--steps" => options.steps = number,
            _ => bail!("`{word}` is not known: {USAGE}"),
        }
    }
    Ok(options)
}

fn main() -> anyhow::Result<ExitCode> {
    let options = options(std::env::args().skip(1))?;
    let mut out = std::io::stdout().lock();
    let seeds = options.seed.map_or(0..options.seeds, |seed| seed..seed + 1);
    if options.seed.is_none() {
        // A panic is a finding like any other and is told as one; a single seed shows where.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let began = Instant::now();
    let mut total = Report::default();
    for seed in seeds.clone() {
        match run(seed, options.steps) {
            Ok(report) => total.add(&report),
            Err(why) => {
                writeln!(out, "seed {seed}: {why}")?;
                let steps = options.steps;
                write!(out, "replay: cargo run --release -p maos-sim -- --seed {seed}")?;
                writeln!(
                    out,
                    "{}",
                    if steps == 400 { String::new() } else { format!(" --steps {steps}") }
                )?;
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    writeln!(
        out,
        "{} seeds, {} steps, {} crashes, {} submissions, {} completions, {} revivals in {:.1} s",
        seeds.end - seeds.start,
        total.steps,
        total.crashes,
        total.submissions,
        total.completions,
        total.revivals,
        began.elapsed().as_secs_f64()
    )?;
    Ok(ExitCode::SUCCESS)
}
