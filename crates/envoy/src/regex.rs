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
/// Estimate of a range of letters beyond ASCII: it becomes several sequences of bytes.
const RANGE_WEIGHT: u64 = 32;
/// Estimate of a Unicode class.
const UNICODE_WEIGHT: u64 = 1000;
/// How many letters may be the same but for their case.
const FOLDS: u64 = 4;
/// Categories and scripts of RE2 as it spells them; scripts newer than Unicode 12 are left out,
/// since not every proxy knows them.
const UNICODE_CLASSES: &str = "Any C Cc Cf Co Cs L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd \
    Pe Pf Pi Po Ps S Sc Sk Sm So Z Zl Zp Zs \
    Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak \
    Bengali Bhaiksuki Bopomofo Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian \
    Caucasian_Albanian Chakma Cham Cherokee Common Coptic Cuneiform Cypriot Cyrillic Deseret \
    Devanagari Dogra Duployan Egyptian_Hieroglyphs Elbasan Elymaic Ethiopic Georgian Glagolitic \
    Gothic Grantha Greek Gujarati Gunjala_Gondi Gurmukhi Han Hangul Hanifi_Rohingya Hanunoo \
    Hatran Hebrew Hiragana Imperial_Aramaic Inherited Inscriptional_Pahlavi \
    Inscriptional_Parthian Javanese Kaithi Kannada Katakana Kayah_Li Kharoshthi Khmer Khojki \
    Khudawadi Lao Latin Lepcha Limbu Linear_A Linear_B Lisu Lycian Lydian Mahajani Makasar \
    Malayalam Mandaic Manichaean Marchen Masaram_Gondi Medefaidrin Meetei_Mayek Mende_Kikakui \
    Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi Mongolian Mro Multani Myanmar Nabataean \
    Nandinagari New_Tai_Lue Newa Nko Nushu Nyiakeng_Puachue_Hmong Ogham Ol_Chiki Old_Hungarian \
    Old_Italic Old_North_Arabian Old_Permic Old_Persian Old_Sogdian Old_South_Arabian \
    Old_Turkic Oriya Osage Osmanya Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa Phoenician \
    Psalter_Pahlavi Rejang Runic Samaritan Saurashtra Sharada Shavian Siddham SignWriting \
    Sinhala Sogdian Sora_Sompeng Soyombo Sundanese Syloti_Nagri Syriac Tagalog Tagbanwa Tai_Le \
    Tai_Tham Tai_Viet Takri Tamil Tangut Telugu Thaana Thai Tibetan Tifinagh Tirhuta Ugaritic \
    Vai Wancho Warang_Citi Yi Zanabazar_Square";
/// Depth of nesting.
const NEST_MAX: u32 = 100;

/// Checks an expression.
///
/// # Errors
/// Why RE2 would or might refuse it, as a clause.
pub fn check(text: &str) -> Result<(), String> {
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
        folds: false,
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
    /// Letters may stand for both cases; once so, always so.
    folds: bool,
}

impl Re2 {
    fn add(&mut self, weight: u64) {
        self.program = self
            .program
            .saturating_add(weight.saturating_mul(self.repeats));
    }

    /// A letter is as many instructions as it has bytes.
    fn letter(&self, letter: char) -> u64 {
        let bytes = u64::try_from(letter.len_utf8()).unwrap_or(u64::MAX);
        if self.folds {
            (bytes + 1).saturating_mul(FOLDS)
        } else {
            bytes
        }
    }

    fn range(&self, range: &ast::ClassSetRange) -> u64 {
        match (range.end.c.is_ascii(), self.folds) {
            (true, _) => 2,
            (false, false) => RANGE_WEIGHT,
            (false, true) => RANGE_WEIGHT.saturating_mul(FOLDS),
        }
    }

    fn assertion(&mut self, assertion: &ast::Assertion) -> Result<(), String> {
        self.add(1);
        match assertion.kind {
            ast::AssertionKind::StartLine
            | ast::AssertionKind::EndLine
            | ast::AssertionKind::StartText
            | ast::AssertionKind::EndText
            | ast::AssertionKind::WordBoundary
            | ast::AssertionKind::NotWordBoundary => Ok(()),
            _ => foreign("a word-edge assertion"),
        }
    }

    fn flags(&mut self, set: &ast::Flags) -> Result<(), String> {
        let ignores_case =
            |item: &ast::FlagsItem| matches!(item.kind, FlagsItemKind::Flag(Flag::CaseInsensitive));
        self.folds |= set.items.iter().any(ignores_case);
        flags(set)
    }
}

fn foreign(what: &str) -> Result<(), String> {
    Err(format!(
        "the regular expression uses {what}, which RE2 lacks"
    ))
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
        match ast {
            Ast::Flags(set) => self.flags(&set.flags),
            Ast::Group(group) => {
                if group.is_capturing() {
                    // Where it starts and where it ends.
                    self.add(2);
                }
                match &group.kind {
                    ast::GroupKind::NonCapturing(set) => self.flags(set),
                    ast::GroupKind::CaptureName { name, .. } => group_name(&name.name),
                    ast::GroupKind::CaptureIndex(_) => Ok(()),
                }
            }
            Ast::Alternation(alternation) => {
                self.add(u64::try_from(alternation.asts.len()).unwrap_or(u64::MAX));
                Ok(())
            }
            Ast::Literal(literal) => {
                self.add(self.letter(literal.c));
                literal_is_shared(literal)
            }
            Ast::Assertion(assertion) => self.assertion(assertion),
            Ast::Repetition(repetition) => {
                if matches!(*repetition.ast, Ast::Repetition(_)) {
                    return foreign("a repetition of a repetition");
                }
                self.repeats = self.repeats.saturating_mul(copies(repetition));
                self.add(1);
                if self.repeats > u64::from(REPEAT_MAX) {
                    return Err("the regular expression repeats too often".to_owned());
                }
                Ok(())
            }
            Ast::Dot(_) | Ast::ClassPerl(_) | Ast::ClassBracketed(_) => {
                self.add(CLASS_WEIGHT);
                Ok(())
            }
            Ast::ClassUnicode(class) => {
                self.add(UNICODE_WEIGHT);
                unicode_class(class)
            }
            Ast::Empty(_) => {
                self.add(1);
                Ok(())
            }
            Ast::Concat(_) => Ok(()),
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
            ClassSetItem::Unicode(class) => {
                self.add(UNICODE_WEIGHT);
                unicode_class(class)
            }
            ClassSetItem::Literal(literal) => {
                // Around what is left out there are two ranges.
                self.add(if literal.c.is_ascii() {
                    self.letter(literal.c) + 1
                } else {
                    RANGE_WEIGHT.saturating_mul(if self.folds { FOLDS } else { 1 })
                });
                literal_is_shared(literal)
            }
            ClassSetItem::Ascii(_) | ClassSetItem::Perl(_) => {
                self.add(CLASS_WEIGHT);
                Ok(())
            }
            ClassSetItem::Range(range) => {
                self.add(self.range(range));
                literal_is_shared(&range.start)?;
                literal_is_shared(&range.end)
            }
            ClassSetItem::Empty(_) | ClassSetItem::Union(_) => Ok(()),
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
        // Envoy lets RE2 read bytes.
        ast::LiteralKind::HexFixed(_) | ast::LiteralKind::HexBrace(_) if literal.c > '\u{ff}' => {
            Err("the regular expression writes a letter above \\x{ff} as a number".to_owned())
        }
        _ => Ok(()),
    }
}

/// RE2 takes fewer names of groups than others do.
fn group_name(name: &str) -> Result<(), String> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.bytes().all(word) && !name.starts_with(|first: char| first.is_ascii_digit()) {
        Ok(())
    } else {
        Err("the regular expression has a group whose name RE2 does not take".to_owned())
    }
}

fn unicode_class(class: &ast::ClassUnicode) -> Result<(), String> {
    let known = |name: &str| {
        UNICODE_CLASSES
            .split_whitespace()
            .any(|known| known == name)
    };
    let found = match &class.kind {
        ast::ClassUnicodeKind::OneLetter(letter) => known(letter.encode_utf8(&mut [0; 4])),
        ast::ClassUnicodeKind::Named(name) => known(name),
        ast::ClassUnicodeKind::NamedValue { .. } => false,
    };
    if found {
        Ok(())
    } else {
        foreign("a Unicode class")
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
            r"\pL[\PN\p{Greek}\P{Lu}]\p{Any}",
            "(?P<a_1>x)(?<B>y)",
            "(?i)(?:/api|/web){2,9}",
            r"\x{ff}é[à-ÿ]",
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
            r"\p{Cn}",
            r"\pQ",
            r"\p{greek}",
            r"[\p{LC}]",
            r"\P{sc=Greek}",
            "(?P<a.b>x)",
            "(?P<a[0]>x)",
            r"\x{3b1}",
            "(?:😀{20}){1000}",
            "(?:😀😀😀😀😀😀😀😀){1000}",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn programs_beyond_the_limit_are_refused() {
        let nested = |depth| format!("{}a{}{{1000}}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(check(&nested(14)), Ok(()));
        for bad in [
            nested(16),
            nested(40),
            format!("(?:{}a){{1000}}", r"\b".repeat(60)),
            format!("(?:{}){{1000}}", "a?".repeat(17)),
            format!("(?:{}a){{1000}}", "b|".repeat(17)),
            format!("(?:{}a){{1000}}", "(?:|)".repeat(17)),
            format!("[{}]{{1000}}", "aceg".repeat(8)),
        ] {
            assert!(check(&bad).is_err(), "{bad}");
        }
    }
}
