//! Whether Envoy's RE2 will accept a user's regular expression.
//!
//! Envoy refuses a listener as a whole for one expression that it cannot read, so the check
//! errs on the side of refusing here, where only one route pays.

use regex_syntax::ast::{self, Ast, ClassSetItem, Flag, FlagsItemKind};

/// Longest expression in bytes; Gateway API allows 4096.
const LENGTH_MAX: usize = 4096;
/// Largest repetition count of RE2.
const REPEAT_MAX: u32 = 1000;
/// Depth of nesting.
const NEST_MAX: u32 = 100;

/// Checks an expression.
///
/// # Errors
/// Why RE2 would or might refuse it, as a clause.
pub(crate) fn check(text: &str) -> Result<(), String> {
    if text.len() > LENGTH_MAX || text.contains(['\0', '\r', '\n']) {
        return Err("the regular expression is too long or has control characters".to_owned());
    }
    let parsed = ast::parse::ParserBuilder::new()
        .nest_limit(NEST_MAX)
        .build()
        .parse(text);
    let ast =
        parsed.map_err(|error| format!("the regular expression is not valid: {}", error.kind()))?;
    let repeats = ast::visit(&ast, Re2 { product: 1 })?;
    if repeats > u64::from(REPEAT_MAX) {
        return Err("the regular expression repeats too often".to_owned());
    }
    Ok(())
}

/// Refuses what regex-syntax reads and RE2 does not.
struct Re2 {
    product: u64,
}

impl ast::Visitor for Re2 {
    type Output = u64;
    type Err = String;

    fn finish(self) -> Result<u64, String> {
        Ok(self.product)
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
            Ast::Literal(literal) => literal_is_shared(literal),
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
                // Nested counts multiply in RE2's program; bounding the product of all of
                // them is coarser and safe.
                if let ast::RepetitionKind::Range(range) = &repetition.op.kind {
                    let count = match range {
                        ast::RepetitionRange::Exactly(n)
                        | ast::RepetitionRange::AtLeast(n)
                        | ast::RepetitionRange::Bounded(_, n) => *n,
                    };
                    self.product = self.product.saturating_mul(u64::from(count.max(1)));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), String> {
        match item {
            ClassSetItem::Bracketed(_) => {
                Err("the regular expression nests character classes, which RE2 lacks".to_owned())
            }
            ClassSetItem::Literal(literal) => literal_is_shared(literal),
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
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
