//! Whether Envoy's RE2 will accept a user's regular expression.
//!
//! Envoy refuses a listener as a whole for one expression that it cannot read, so the check
//! errs on the side of refusing here, where only one route pays.

use regex_syntax::ast::{self, Ast, ClassSetItem, Flag, FlagsItemKind};

/// Longest expression in bytes; Gateway API allows 4096.
const LENGTH_MAX: usize = 4096;
/// Largest repetition count of RE2.
const REPEAT_MAX: u32 = 1000;
/// Largest estimate of RE2 instructions; Envoy is told to accept 32768.
const PROGRAM_MAX: u64 = 30_000;
/// Estimate of a class or a dot, in instructions.
const CLASS_WEIGHT: u64 = 12;
/// Estimate of a Unicode class.
const UNICODE_WEIGHT: u64 = 1000;
/// Depth of nesting.
const NEST_MAX: u32 = 100;

/// Checks an expression.
///
/// # Errors
/// Why RE2 would or might refuse it, as a clause.
pub(crate) fn check(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > LENGTH_MAX || text.contains(['\0', '\r', '\n']) {
        return Err(
            "the regular expression is empty, too long or has control characters".to_owned(),
        );
    }
    let parsed = ast::parse::ParserBuilder::new()
        .nest_limit(NEST_MAX)
        .build()
        .parse(text);
    let ast =
        parsed.map_err(|error| format!("the regular expression is not valid: {}", error.kind()))?;
    let start = Re2 {
        repeats: 1,
        program: 0,
    };
    if ast::visit(&ast, start)? > PROGRAM_MAX {
        return Err("the regular expression is too complex".to_owned());
    }
    Ok(())
}

/// Refuses what regex-syntax reads and RE2 does not.
struct Re2 {
    /// Product of the repetition counts around the current node.
    repeats: u64,
    /// Estimated instructions so far.
    program: u64,
}

impl Re2 {
    fn add(&mut self, weight: u64) {
        self.program = self
            .program
            .saturating_add(weight.saturating_mul(self.repeats));
    }
}

/// How often a repetition copies its body.
fn copies(repetition: &ast::Repetition) -> u64 {
    match &repetition.op.kind {
        ast::RepetitionKind::Range(
            ast::RepetitionRange::Exactly(n)
            | ast::RepetitionRange::AtLeast(n)
            | ast::RepetitionRange::Bounded(_, n),
        ) => u64::from(*n).max(1),
        _ => 1,
    }
}

impl ast::Visitor for Re2 {
    type Output = u64;
    type Err = String;

    fn finish(self) -> Result<u64, String> {
        Ok(self.program)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), String> {
        let foreign = |what: &str| {
            Err(format!(
                "the regular expression uses {what}, which RE2 lacks"
            ))
        };
        match ast {
            Ast::Flags(set) => flags(&set.flags),
            Ast::Group(group) => match &group.kind {
                ast::GroupKind::NonCapturing(set) => flags(set),
                _ => Ok(()),
            },
            Ast::Literal(literal) => {
                self.add(1);
                literal_is_shared(literal)
            }
            Ast::Assertion(assertion) => match assertion.kind {
                ast::AssertionKind::StartLine
                | ast::AssertionKind::EndLine
                | ast::AssertionKind::StartText
                | ast::AssertionKind::EndText
                | ast::AssertionKind::WordBoundary
                | ast::AssertionKind::NotWordBoundary => Ok(()),
                _ => foreign("a word-edge assertion"),
            },
            Ast::Repetition(repetition) => {
                if matches!(*repetition.ast, Ast::Repetition(_)) {
                    return foreign("a repetition of a repetition");
                }
                self.repeats = self.repeats.saturating_mul(copies(repetition));
                if self.repeats > u64::from(REPEAT_MAX) {
                    return Err("the regular expression repeats too often".to_owned());
                }
                Ok(())
            }
            Ast::Dot(_) | Ast::ClassPerl(_) | Ast::ClassBracketed(_) => {
                self.add(CLASS_WEIGHT);
                Ok(())
            }
            Ast::ClassUnicode(_) => {
                self.add(UNICODE_WEIGHT);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn visit_post(&mut self, ast: &Ast) -> Result<(), String> {
        if let Ast::Repetition(repetition) = ast {
            self.repeats /= copies(repetition);
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), String> {
        match item {
            ClassSetItem::Bracketed(_) => {
                Err("the regular expression nests character classes, which RE2 lacks".to_owned())
            }
            ClassSetItem::Unicode(_) => {
                self.add(UNICODE_WEIGHT);
                Ok(())
            }
            ClassSetItem::Literal(literal) => {
                self.add(1);
                literal_is_shared(literal)
            }
            ClassSetItem::Range(range) => {
                literal_is_shared(&range.start)?;
                literal_is_shared(&range.end)
            }
            _ => Ok(()),
        }
    }

    fn visit_class_set_binary_op_pre(&mut self, _: &ast::ClassSetBinaryOp) -> Result<(), String> {
        Err("the regular expression combines character classes, which RE2 lacks".to_owned())
    }
}

fn literal_is_shared(literal: &ast::Literal) -> Result<(), String> {
    match literal.kind {
        ast::LiteralKind::HexFixed(
            ast::HexLiteralKind::UnicodeShort | ast::HexLiteralKind::UnicodeLong,
        )
        | ast::LiteralKind::HexBrace(
            ast::HexLiteralKind::UnicodeShort | ast::HexLiteralKind::UnicodeLong,
        ) => Err("the regular expression uses \\u, which RE2 lacks".to_owned()),
        _ => Ok(()),
    }
}

fn flags(set: &ast::Flags) -> Result<(), String> {
    let fits = |item: &ast::FlagsItem| {
        !matches!(
            item.kind,
            FlagsItemKind::Flag(Flag::IgnoreWhitespace | Flag::Unicode | Flag::CRLF)
        )
    };
    if set.items.iter().all(fits) {
        Ok(())
    } else {
        Err("the regular expression uses a flag that RE2 lacks".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn what_re2_reads_passes_and_the_rest_is_refused() {
        for good in [
            "/a.*",
            "/v[0-9]{1,3}/x",
            "(?i)abc",
            "^/a$",
            r"/\d+\.html",
            "(?:a|b)?",
            ".+",
            "[a-z]{1,63}-[a-z]{1,63}",
            r"(?:[a-z0-9-]{1,63}\.){1,10}example\.com",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "(",
            "a**b",
            "(?x)a",
            "[a&&b]",
            "a{1001}",
            "(a{100}){100}",
            r"\u{61}",
            "(?=a)",
            "[",
            r"\<a",
            r"\pL{40}",
            "",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
