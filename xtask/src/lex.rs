//! Just enough of Rust's lexical rules to tell code from comments and strings.

use std::iter::Peekable;
use std::str::Chars;

/// A piece of code; comments and white space are gone, numbers read as words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Word(String),
    /// A string literal without its quotes; escapes are left as they are.
    Text(String),
    Mark(char),
}

/// The tokens of `source`. Never fails: an unclosed literal runs to the end.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut chars = source.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => skip_line(&mut chars),
            '/' if chars.peek() == Some(&'*') => skip_block(&mut chars),
            '"' => tokens.push(Token::Text(quoted(&mut chars))),
            '\'' => skip_char_or_lifetime(&mut chars),
            c if is_word(c) => {
                let mut word = String::from(c);
                while let Some(c) = chars.next_if(|c| is_word(*c)) {
                    word.push(c);
                }
                tokens.push(after_word(word, &mut chars));
            }
            c if c.is_whitespace() => {}
            c => tokens.push(Token::Mark(c)),
        }
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A word, or the literal or raw name whose prefix it turns out to be.
fn after_word(word: String, chars: &mut Peekable<Chars<'_>>) -> Token {
    match (word.as_str(), chars.peek()) {
        ("b" | "c", Some('"')) => {
            chars.next();
            Token::Text(quoted(chars))
        }
        ("r" | "br" | "cr", Some('"' | '#')) => raw(chars),
        _ => Token::Word(word),
    }
}

fn skip_line(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|c| *c != '\n').is_some() {}
}

/// Skips a block comment, which may hold others.
fn skip_block(chars: &mut Peekable<Chars<'_>>) {
    let mut depth = 0_usize;
    let mut before = '/';
    for c in chars.by_ref() {
        match (before, c) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth = depth.saturating_sub(1),
            _ => {
                before = c;
                continue;
            }
        }
        if depth == 0 {
            return;
        }
        before = ' ';
    }
}

fn quoted(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut text = String::new();
    while let Some(c) = chars.next().filter(|c| *c != '"') {
        text.push(c);
        if c == '\\' {
            text.extend(chars.next());
        }
    }
    text
}

/// `"…"` or `#"…"#` after an `r`; or `#name`, which is a word.
fn raw(chars: &mut Peekable<Chars<'_>>) -> Token {
    let mut fence = String::from("\"");
    while chars.next_if_eq(&'#').is_some() {
        fence.push('#');
    }
    if chars.next_if_eq(&'"').is_none() {
        let mut word = String::new();
        while let Some(c) = chars.next_if(|c| is_word(*c)) {
            word.push(c);
        }
        return Token::Word(word);
    }
    let mut text = String::new();
    for c in chars.by_ref() {
        text.push(c);
        if let Some(inside) = text.strip_suffix(&fence) {
            return Token::Text(inside.to_owned());
        }
    }
    Token::Text(text)
}

/// Skips `'x'` or `'\n'` whole; of a lifetime only the quote.
fn skip_char_or_lifetime(chars: &mut Peekable<Chars<'_>>) {
    let mut ahead = chars.clone();
    match (ahead.next(), ahead.next()) {
        (Some('\\'), Some(_)) => {
            chars.next();
            chars.next();
            while chars.next().is_some_and(|c| c != '\'') {}
        }
        (Some(_), Some('\'')) => {
            chars.next();
            chars.next();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_characters_vanish_and_strings_stay_whole() {
        let cases: &[(&str, &str)] = &[
            ("mod a; // mod b;", "mod a ;"),
            ("a /* x /* y */ mod b; */ c", "a c"),
            ("a /**/ c", "a c"),
            ("a / b", "a / b"),
            (r#"x("mod \" b;")"#, r#"x ( "mod \" b;" )"#),
            ("r#\"a \" b\"# c", "\"a \" b\" c"),
            ("r\"\\\" c", "\"\\\" c"),
            ("br\"a\" b\"c\"", "\"a\" \"c\""),
            ("r#mod", "mod"),
            ("'\"' '\\'' '\\u{27}' x", "x"),
            ("fn f<'a>(x: &'a str)", "fn f < a > ( x : & a str )"),
            ("\"never closed", "\"never closed\""),
        ];
        for (source, expected) in cases {
            let shown: Vec<String> = tokens(source)
                .into_iter()
                .map(|token| match token {
                    Token::Word(word) => word,
                    Token::Text(text) => format!("\"{text}\""),
                    Token::Mark(mark) => mark.to_string(),
                })
                .collect();
            assert_eq!(shown.join(" "), *expected, "{source}");
        }
    }
}
