//! `check-orphans`: every source file is compiled, finished and of a readable size.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::lex::{Token, tokens};
use crate::steps;
use crate::workspace::{self, Package};

/// Longest file that is not a test.
const LINES_MAX: usize = 800;

/// Where a package keeps its code.
const SOURCE_DIRECTORIES: &[&str] = &["src", "tests", "benches", "examples"];

/// A generated file says so within its first lines, and may have any length.
const GENERATED: &str = "@generated";

/// Checks every package of the workspace.
///
/// # Errors
/// Names every file at fault.
pub(crate) fn run() -> Result<()> {
    let mut files = 0;
    let mut faults = Vec::new();
    for package in workspace::packages()? {
        let (count, found) = check(&package)?;
        files += count;
        faults.extend(found);
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    println!("check-orphans: {files} files are reached, finished and of a readable size");
    Ok(())
}

/// Count of the package's files, and what is wrong with them.
fn check(package: &Package) -> Result<(usize, Vec<String>)> {
    let mut present = BTreeSet::new();
    for directory in SOURCE_DIRECTORIES {
        list(&package.directory.join(directory), &mut present)?;
    }
    let reached = reached(&package.roots)?;
    let mut faults = Vec::new();
    for file in present.union(&reached) {
        let source = read(file)?;
        let shown = file.strip_prefix(steps::root()).unwrap_or(file).display();
        if !reached.contains(file) {
            faults.push(format!("{shown}: no target and no `mod` reaches it"));
        }
        if let Some(lines) = excess_lines(file, &source) {
            faults.push(format!("{shown}: {lines} lines, at most {LINES_MAX}"));
        }
        let unfinished = unfinished(&tokens(&source));
        faults.extend(unfinished.iter().map(|what| format!("{shown}: {what}")));
    }
    Ok((present.len(), faults))
}

/// Adds the `.rs` files below `directory`, which need not exist.
fn list(directory: &Path, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    if !directory.is_dir() {
        return Ok(());
    }
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.insert(path);
        }
    }
    Ok(())
}

/// The files that compiling `roots` would read.
fn reached(roots: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<(PathBuf, bool)> = roots.iter().map(|root| (root.clone(), true)).collect();
    while let Some((file, owns_directory)) = open.pop() {
        if !reached.insert(file.clone()) {
            continue;
        }
        let owns_directory = owns_directory || file.ends_with("mod.rs");
        for candidate in children(&file, owns_directory, &tokens(&read(&file)?)) {
            // Of `a.rs` and `a/mod.rs` one exists; a missing file is rustc's to report.
            if candidate.path.is_file() {
                open.push((candidate.path, candidate.owns_directory));
            }
        }
    }
    Ok(reached)
}

/// A file that a module declaration may mean.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    path: PathBuf,
    /// Its own modules lie beside it, not in a directory of its name.
    owns_directory: bool,
}

/// The files that `file`, read as `tokens`, declares as modules or includes.
///
/// Source: The Rust Reference, "Modules", "Module source filenames".
fn children(file: &Path, owns_directory: bool, tokens: &[Token]) -> Vec<Candidate> {
    let beside = file.parent().unwrap_or(Path::new("")).to_path_buf();
    let below = if owns_directory {
        beside.clone()
    } else {
        beside.join(file.file_stem().unwrap_or_default())
    };
    let mut found = Vec::new();
    // Inline modules that enclose the place we are at, with the depth of their braces.
    let mut inline: Vec<(usize, &str)> = Vec::new();
    let mut depth = 0_usize;
    let mut path_attribute: Option<&str> = None;
    let mut rest = tokens;
    while let Some((token, tail)) = rest.split_first() {
        rest = tail;
        let here = || {
            inline
                .iter()
                .fold(below.clone(), |at, (_, name)| at.join(name))
        };
        match (token, tail) {
            (
                Token::Mark('#'),
                [
                    Token::Mark('['),
                    Token::Word(word),
                    Token::Mark('='),
                    Token::Text(path),
                    ..,
                ],
            ) if word == "path" => path_attribute = Some(path),
            (Token::Word(word), [Token::Mark('!'), Token::Mark('('), Token::Text(path), ..])
                if word == "include" =>
            {
                found.push(owner(beside.join(path)));
            }
            (Token::Word(word), [Token::Word(name), Token::Mark(';'), ..]) if word == "mod" => {
                match path_attribute.take() {
                    Some(path) if inline.is_empty() => found.push(owner(beside.join(path))),
                    Some(path) => found.push(owner(here().join(path))),
                    None => {
                        found.push(Candidate {
                            path: here().join(format!("{name}.rs")),
                            owns_directory: false,
                        });
                        found.push(owner(here().join(name).join("mod.rs")));
                    }
                }
            }
            (Token::Word(word), [Token::Word(name), Token::Mark('{'), ..]) if word == "mod" => {
                inline.push((depth, path_attribute.take().unwrap_or(name)));
            }
            (Token::Mark('{'), _) => depth += 1,
            (Token::Mark('}'), _) => {
                depth = depth.saturating_sub(1);
                inline.pop_if(|(at, _)| *at == depth);
            }
            _ => {}
        }
    }
    found
}

fn owner(path: PathBuf) -> Candidate {
    Candidate {
        path,
        owns_directory: true,
    }
}

/// The length of `source` if it is too long for what it is.
fn excess_lines(file: &Path, source: &str) -> Option<usize> {
    let is_test = file.file_name().is_some_and(|name| name == "tests.rs")
        || file.components().any(|part| part.as_os_str() == "tests");
    let is_generated = source.lines().take(5).any(|line| line.contains(GENERATED));
    let lines = source.lines().count();
    (lines > LINES_MAX && !is_test && !is_generated).then_some(lines)
}

/// Marks of work left for later: macros that panic, and tests that never run.
fn unfinished(tokens: &[Token]) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut rest = tokens;
    while let Some((token, tail)) = rest.split_first() {
        rest = tail;
        match (token, tail) {
            (Token::Word(word), [Token::Mark('!'), Token::Mark('(' | '[' | '{'), ..]) => {
                match word.as_str() {
                    "todo" => found.push("`todo!` is work left undone"),
                    "unimplemented" => found.push("`unimplemented!` is work left undone"),
                    _ => {}
                }
            }
            (Token::Mark('#'), [Token::Mark('['), Token::Word(word), ..]) if word == "ignore" => {
                found.push("an ignored test proves nothing");
            }
            _ => {}
        }
    }
    found
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests;
