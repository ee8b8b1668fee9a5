//! Findings for people: grouped by object, aligned, coloured on a terminal.

use std::fmt::Write as _;

use model::{Finding, Severity};

/// ANSI colours, or nothing.
#[derive(Clone, Copy, Debug)]
pub struct Palette {
    on: bool,
}

impl Palette {
    /// Colours when `on`.
    pub fn new(on: bool) -> Self {
        Self { on }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.on {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// The report: one block per object, worst findings first within it, then a summary line.
pub fn report(findings: &[Finding], palette: Palette) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by(|a, b| (&a.object, a.severity, *a).cmp(&(&b.object, b.severity, *b)));
    let mut out = String::new();
    let mut last = None;
    for finding in &sorted {
        if last != Some(&finding.object) {
            if last.is_some() {
                out.push('\n');
            }
            let title = format!("{} {}", finding.object.kind, finding.object.key);
            let _ = writeln!(out, "{}", palette.paint("1", &title));
            last = Some(&finding.object);
        }
        let (word, colour) = match finding.severity {
            Severity::Error => ("error", "31"),
            Severity::Warning => ("warning", "33"),
            Severity::Info => ("info", "36"),
        };
        let word = palette.paint(colour, &format!("{word:<7}"));
        let _ = writeln!(out, "  {word}  {}", finding.code);
        let mut line = |name: &str, text: &str| {
            if !text.is_empty() {
                let _ = writeln!(out, "           {name:<6} {text}");
            }
        };
        line("field", &finding.field);
        line("what", &finding.message);
        line("fix", &finding.fix);
    }
    let count = |severity| sorted.iter().filter(|f| f.severity == severity).count();
    if !sorted.is_empty() {
        out.push('\n');
    }
    let _ = writeln!(
        out,
        "{}, {}, {}",
        plural(count(Severity::Error), "error"),
        plural(count(Severity::Warning), "warning"),
        plural(count(Severity::Info), "note"),
    );
    out
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 {
        format!("1 {word}")
    } else {
        format!("{count} {word}s")
    }
}

#[cfg(test)]
mod tests {
    use model::{Kind, ObjectKey, ObjectRef};

    use super::*;

    #[test]
    fn findings_read_object_by_object_with_the_worst_first() {
        let object = |name| ObjectRef::new(Kind::Service, ObjectKey::new("shop", name));
        let findings = [
            Finding::new(
                "b-code",
                Severity::Warning,
                object("web"),
                "It is odd.",
                "Do this.",
            ),
            Finding::new(
                "a-code",
                Severity::Error,
                object("web"),
                "It is bad.",
                "Do that.",
            )
            .at("spec.ports[0]"),
            Finding::new("c-code", Severity::Info, object("api"), "Look.", ""),
        ];
        let expected = "\
Service shop/api
  info     c-code
           what   Look.

Service shop/web
  error    a-code
           field  spec.ports[0]
           what   It is bad.
           fix    Do that.
  warning  b-code
           what   It is odd.
           fix    Do this.

1 error, 1 warning, 1 note
";
        assert_eq!(report(&findings, Palette::new(false)), expected);
        assert_eq!(
            report(&[], Palette::new(false)),
            "0 errors, 0 warnings, 0 notes\n"
        );
    }
}
