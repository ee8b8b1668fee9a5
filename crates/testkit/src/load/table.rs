//! Results: rows of what was measured, one value for each run.

use std::fmt;

use serde_json::{Value, json};

/// A value that was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    /// Seconds, of a processor or of a clock.
    Seconds(f64),
    /// Milliseconds.
    Millis(f64),
    /// Bytes.
    Bytes(f64),
    /// So many.
    Count(f64),
    /// One against the other.
    Ratio(f64),
}

impl Measure {
    fn value(self) -> f64 {
        match self {
            Self::Seconds(it)
            | Self::Millis(it)
            | Self::Bytes(it)
            | Self::Count(it)
            | Self::Ratio(it) => it,
        }
    }

    fn with(self, value: f64) -> Self {
        match self {
            Self::Seconds(_) => Self::Seconds(value),
            Self::Millis(_) => Self::Millis(value),
            Self::Bytes(_) => Self::Bytes(value),
            Self::Count(_) => Self::Count(value),
            Self::Ratio(_) => Self::Ratio(value),
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Seconds(_) => "seconds",
            Self::Millis(_) => "milliseconds",
            Self::Bytes(_) => "bytes",
            Self::Count(_) => "count",
            Self::Ratio(_) => "ratio",
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = match *self {
            Self::Seconds(it) => format!("{it:.3} s"),
            Self::Millis(it) => format!("{it:.2} ms"),
            Self::Bytes(it) if it.abs() >= 1024.0 * 1024.0 => {
                format!("{:.1} MiB", it / (1024.0 * 1024.0))
            }
            Self::Bytes(it) if it.abs() >= 1024.0 => format!("{:.1} KiB", it / 1024.0),
            Self::Bytes(it) => format!("{it:.0} B"),
            Self::Count(it) if it.fract() == 0.0 => format!("{it:.0}"),
            Self::Count(it) => format!("{it:.1}"),
            Self::Ratio(it) => format!("{it:.2} x"),
        };
        f.pad(&shown)
    }
}

#[derive(Debug)]
struct Row {
    name: String,
    values: Vec<Measure>,
}

/// The results of a scenario.
#[derive(Debug)]
pub struct Table {
    title: String,
    machine: String,
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Table {
    /// An empty one. The title names the scenario and its sizes.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            machine: super::process::machine(),
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a row, or to the row of this name the value of another run.
    pub fn add(&mut self, name: impl Into<String>, measure: Measure) {
        let name = name.into();
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.values.push(measure),
            None => self.rows.push(Row {
                name,
                values: vec![measure],
            }),
        }
    }

    /// Adds a line of text below the rows, once.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let (min, median, max) = row.spread();
                let values: Vec<f64> = row.values.iter().map(|it| it.value()).collect();
                json!({
                    "name": row.name, "unit": row.values[0].unit(), "values": values,
                    "min": min.value(), "median": median.value(), "max": max.value(),
                })
            })
            .collect();
        json!({"title": self.title, "machine": self.machine, "rows": rows, "notes": self.notes})
    }
}

impl Row {
    fn spread(&self) -> (Measure, Measure, Measure) {
        let mut values: Vec<f64> = self.values.iter().map(|it| it.value()).collect();
        values.sort_by(f64::total_cmp);
        let of = |at: usize| self.values[0].with(values[at]);
        (of(0), of(values.len() / 2), of(values.len() - 1))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}\n{}", self.title, self.machine)?;
        let width = self.rows.iter().map(|row| row.name.chars().count()).max();
        let width = width.unwrap_or_default().max(20) + 2;
        writeln!(
            f,
            "{:<width$}{:>14}{:>14}{:>14}",
            "", "min", "median", "max"
        )?;
        for row in &self.rows {
            let (min, median, max) = row.spread();
            write!(f, "{:<width$}", row.name)?;
            if row.values.len() == 1 {
                writeln!(f, "{:>14}{median:>14}", "")?;
            } else {
                writeln!(f, "{min:>14}{median:>14}{max:>14}")?;
            }
        }
        for note in &self.notes {
            writeln!(f, "  {note}")?;
        }
        Ok(())
    }
}

/// The value that so many of a thousand are not above; 0 of nothing.
pub fn permille(values: &mut [f64], permille: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let at = (values.len() * permille).div_ceil(1000).saturating_sub(1);
    values.get(at.min(last)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn runs_of_a_row_are_shown_by_their_spread() {
        let mut table = Table::new("t");
        for value in [3.0, 1.0, 2.0] {
            table.add("a", Measure::Seconds(value));
        }
        table.add("b", Measure::Bytes(2048.0));
        let text = table.to_string();
        assert!(
            text.contains("1.000 s") && text.contains("3.000 s"),
            "{text}"
        );
        assert!(text.contains("2.0 KiB"), "{text}");
        assert_eq!(table.json()["rows"][0]["median"], 2.0);
    }

    #[test]
    fn permilles_are_values_that_were_measured() {
        let mut values: Vec<f64> = (1..=1000).rev().map(f64::from).collect();
        assert_eq!(permille(&mut values, 990), 990.0);
        assert_eq!(permille(&mut values, 1000), 1000.0);
        assert_eq!(permille(&mut [7.0], 990), 7.0);
        assert_eq!(permille(&mut [], 500), 0.0);
    }
}
