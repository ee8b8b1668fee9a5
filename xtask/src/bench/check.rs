//! `bench --check`: what single functions and events cost, counted instead of timed.
//!
//! Valgrind counts instructions (`callgrind`) and bytes allocated (`dhat`) of `benches/cost.rs`.
//! Each is run twice, for few and for more repetitions: the difference is the repetitions'. So a
//! busy machine counts as an idle one does, and a regression shows.
//!
//! Counts depend on the compiler, so that of the baseline is noted there; with another one the
//! comparison is shown, but fails nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::steps;

/// How much more than the baseline is taken for noise.
const MARGIN: f64 = 1.25;
/// Repetitions of the two runs.
const FEW: u32 = 2;
const MORE: u32 = 12;
/// A cost below this many is not compared: a hash table that grows is a multiple of it.
const COMPARED_MIN: f64 = 500.0;

/// Instructions and bytes of one repetition.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    instructions: f64,
    bytes: f64,
}

/// Counts and compares with the baseline, or writes it anew.
///
/// # Errors
/// When something costs more than the margin allows, or cannot be counted.
pub(crate) fn run(bless: bool) -> Result<()> {
    let program = build()?;
    let names = said(
        Command::new(&program).arg("--names"),
        "listing what is counted",
    )?;
    let mut costs = BTreeMap::new();
    for name in names.lines() {
        costs.insert(name.to_owned(), count(&program, name)?);
    }
    let compiler = said(
        Command::new("rustc").arg("--version"),
        "asking the compiler",
    )?;
    let compiler = compiler.trim();
    if bless {
        let text = format!("{:#}\n", to_json(compiler, &costs));
        std::fs::write(baseline(), text).context("cannot write the baseline")?;
        println!("written: {}", baseline().display());
        return Ok(());
    }
    let Ok(text) = std::fs::read_to_string(baseline()) else {
        println!("there is no baseline, so nothing is compared; --bless writes one");
        return Ok(());
    };
    let (was_compiler, was) = from_json(&serde_json::from_str(&text)?)?;
    let worse = compare(&was, &costs);
    if was_compiler != compiler {
        println!("the baseline is of {was_compiler}, this is {compiler}: nothing is judged");
        return Ok(());
    }
    if !worse.is_empty() {
        bail!(
            "more than {MARGIN} x the baseline: {}; `cargo xtask bench --check --bless` takes it as the new one",
            worse.join(", ")
        );
    }
    Ok(())
}

fn baseline() -> PathBuf {
    steps::root().join("benches/cost/baseline.json")
}

/// Builds the program with the tests' profile and features, so that nothing is compiled twice.
fn build() -> Result<PathBuf> {
    let args = [
        "build",
        "--workspace",
        "--bench",
        "cost",
        "--message-format",
        "json-render-diagnostics",
    ];
    let said = said(&mut steps::cargo(&args), "building what is counted")?;
    let is_it = |message: &Value| message.pointer("/target/name") == Some(&Value::from("cost"));
    let messages = said
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let path = messages
        .filter(is_it)
        .find_map(|message: Value| Some(PathBuf::from(message.get("executable")?.as_str()?)));
    path.context("cargo built no benchmark `cost`")
}

fn said(command: &mut Command, progress: &str) -> Result<String> {
    let output = steps::run_quietly(command, progress)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn count(program: &Path, name: &str) -> Result<Cost> {
    let mut of = [(0.0, 0.0); 2];
    for (run, repetitions) in of.iter_mut().zip([FEW, MORE]) {
        let instructions = told(
            program,
            &["--tool=callgrind", "--callgrind-out-file=/dev/null"],
            (name, repetitions),
            "Collected :",
        )?;
        let bytes = told(
            program,
            &["--tool=dhat", "--dhat-out-file=/dev/null"],
            (name, repetitions),
            "Total:",
        )?;
        *run = (instructions, bytes);
    }
    let [few, more] = of;
    let each = |more: f64, few: f64| (more - few).max(0.0) / f64::from(MORE - FEW);
    let cost = Cost {
        instructions: each(more.0, few.0),
        bytes: each(more.1, few.1),
    };
    println!(
        "{name:<16}{:>14.0} instructions{:>12.0} bytes",
        cost.instructions, cost.bytes
    );
    Ok(cost)
}

/// The number that valgrind gives behind a word.
fn told(
    program: &Path,
    tool: &[&str],
    (name, repetitions): (&str, u32),
    word: &str,
) -> Result<f64> {
    let mut run = Command::new("valgrind");
    run.args(tool)
        .arg(program)
        .arg(name)
        .arg(repetitions.to_string());
    let output = run
        .output()
        .context("cannot run valgrind: it must be installed")?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{run:?} failed:\n{text}");
    }
    number_behind(&text, word).with_context(|| format!("{run:?} says nothing of {word}\n{text}"))
}

/// The first number behind a word: `==12== Total:     1,234 bytes in 5 blocks` has 1234.
fn number_behind(text: &str, word: &str) -> Option<f64> {
    let (_, rest) = text.split_once(word)?;
    let digits: String = rest.split_whitespace().next()?.replace(',', "");
    digits.parse().ok()
}

/// Shows both, and names what is worse.
fn compare(was: &BTreeMap<String, Cost>, is: &BTreeMap<String, Cost>) -> Vec<String> {
    let mut worse = Vec::new();
    for (name, cost) in is {
        let Some(old) = was.get(name) else {
            println!("{name:<16} is new");
            worse.push(format!("{name} has no baseline"));
            continue;
        };
        let kinds = [
            ("instructions", old.instructions, cost.instructions),
            ("bytes", old.bytes, cost.bytes),
        ];
        for (what, old, new) in kinds {
            let ratio = new / old.max(1.0);
            println!("{name:<16}{what:<14}{ratio:>6.2} x the baseline");
            if new.max(old) >= COMPARED_MIN && ratio > MARGIN {
                worse.push(format!("{name} ({what} {old:.0} -> {new:.0})"));
            }
        }
    }
    worse
}

fn to_json(compiler: &str, costs: &BTreeMap<String, Cost>) -> Value {
    let costs: serde_json::Map<String, Value> = costs
        .iter()
        .map(|(name, cost)| {
            let cost = json!({
                "instructions": cost.instructions.round(), "bytes": cost.bytes.round(),
            });
            (name.clone(), cost)
        })
        .collect();
    json!({"compiler": compiler, "costs": costs})
}

fn from_json(value: &Value) -> Result<(String, BTreeMap<String, Cost>)> {
    let compiler = value["compiler"].as_str().context("no compiler")?;
    let costs = value["costs"].as_object().context("no costs")?;
    let read = |(name, cost): (&String, &Value)| {
        let number = |key: &str| {
            cost[key]
                .as_f64()
                .with_context(|| format!("{name}: no {key}"))
        };
        let cost = Cost {
            instructions: number("instructions")?,
            bytes: number("bytes")?,
        };
        anyhow::Ok((name.clone(), cost))
    };
    let costs = costs.iter().map(read).collect::<Result<_>>()?;
    Ok((compiler.to_owned(), costs))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const fn cost(instructions: f64, bytes: f64) -> Cost {
        Cost {
            instructions,
            bytes,
        }
    }

    #[test]
    fn numbers_of_valgrind_are_read() {
        let text = "==12== Events    : Ir\n==12== Collected : 81943211\n==12== \n";
        assert_eq!(number_behind(text, "Collected :"), Some(81_943_211.0));
        let text = "==7== Total:     1,234,567 bytes in 9 blocks\n";
        assert_eq!(number_behind(text, "Total:"), Some(1_234_567.0));
        assert_eq!(number_behind(text, "Collected :"), None);
    }

    #[test]
    fn only_what_grew_by_more_than_the_margin_is_worse() {
        let of = |name: &str, cost| (name.to_owned(), cost);
        let was = BTreeMap::from([
            of("same", cost(1000.0, 1000.0)),
            of("more-bytes", cost(1000.0, 1000.0)),
            of("tiny", cost(10.0, 0.0)),
        ]);
        let is = BTreeMap::from([
            of("same", cost(1200.0, 800.0)),
            of("more-bytes", cost(1000.0, 1300.0)),
            of("tiny", cost(100.0, 400.0)),
            of("unknown", cost(1.0, 1.0)),
        ]);
        let worse = compare(&was, &is);
        assert_eq!(
            worse,
            ["more-bytes (bytes 1000 -> 1300)", "unknown has no baseline"]
        );
    }

    #[test]
    fn a_baseline_is_read_as_it_is_written() {
        let costs = BTreeMap::from([("a".to_owned(), cost(12.0, 34.0))]);
        let (compiler, read) = from_json(&to_json("rustc 1", &costs)).unwrap();
        assert_eq!((compiler.as_str(), read), ("rustc 1", costs));
    }
}
