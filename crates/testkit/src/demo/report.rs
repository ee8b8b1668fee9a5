//! What the person at the terminal reads.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Instant;

/// Prints progress, tables and claims, and counts the claims that do not hold.
pub(super) struct Report {
    started: Instant,
    is_colored: bool,
    held_count: usize,
    broken: Vec<String>,
    has_verdict: bool,
}

/// Prints a line; a reader who has gone is no reason to fail.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

const GREEN: &str = "32";
const RED: &str = "31";
const DIM: &str = "2";
const BOLD: &str = "1";

impl Report {
    pub(super) fn new() -> Self {
        let is_colored = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            started: Instant::now(),
            is_colored,
            held_count: 0,
            broken: Vec::new(),
            has_verdict: false,
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.is_colored {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// A new part of the demo.
    pub(super) fn heading(&self, text: &str) {
        say(&format!("\n{}", self.paint(BOLD, text)));
    }

    /// What is being done now.
    pub(super) fn progress(&self, text: &str) {
        let line = format!("  [{:5.1} s] {text}", self.started.elapsed().as_secs_f32());
        say(&self.paint(DIM, &line));
    }

    /// A plain line.
    #[allow(clippy::unused_self, reason = "all output goes through the report")]
    pub(super) fn line(&self, text: &str) {
        say(&format!("  {text}"));
    }

    /// A statement and whether it holds.
    pub(super) fn claim(&mut self, holds: bool, text: &str) {
        if holds {
            self.held_count += 1;
            say(&format!("  {} {text}", self.paint(GREEN, "ok  ")));
        } else {
            say(&format!("  {} {text}", self.paint(RED, "FAIL")));
            self.broken.push(text.to_owned());
        }
    }

    /// A table; rows are as wide as their widest cells.
    pub(super) fn table(&mut self, head: &[&str], rows: &[(bool, Vec<String>)]) {
        let mut widths: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
        for (_, row) in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let join = |cells: &[String]| {
            let padded = cells.iter().zip(&widths).map(|(c, w)| format!("{c:w$}"));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let head: Vec<String> = head.iter().map(|h| (*h).to_owned()).collect();
        say(&format!("       {}", self.paint(BOLD, &join(&head))));
        for (holds, row) in rows {
            self.claim(*holds, &join(row));
        }
    }

    /// How many claims held.
    pub(super) fn verdict(&mut self) {
        self.has_verdict = true;
        if self.broken.is_empty() {
            let text = format!("All {} claims hold.", self.held_count);
            say(&format!("\n{}", self.paint(GREEN, &text)));
            return;
        }
        let all = self.held_count + self.broken.len();
        let text = format!("{} of {all} claims do not hold:", self.broken.len());
        say(&format!("\n{}", self.paint(RED, &text)));
        for claim in &self.broken {
            say(&format!("  - {claim}"));
        }
    }

    /// The end, when every part was shown.
    pub(super) fn finish(&mut self) -> ExitCode {
        self.verdict();
        self.code()
    }

    /// The end, when a signal came: 130 if it came before the verdict.
    pub(super) fn interrupted(&self) -> ExitCode {
        if self.has_verdict {
            self.code()
        } else {
            ExitCode::from(130)
        }
    }

    fn code(&self) -> ExitCode {
        if self.broken.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// The end, when a part could not be shown.
    #[allow(clippy::unused_self, reason = "all output goes through the report")]
    pub(super) fn abort(&self, error: &anyhow::Error) -> ExitCode {
        eprintln!("\nambientd-demo: {error:#}");
        ExitCode::from(2)
    }
}
