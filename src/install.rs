//! `ambientd agent-install`: puts this program where another container starts it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::config::AgentInstallArgs;

/// Its name there.
const NAME: &str = "ambientd";
/// This very program, even when its file was replaced.
const SELF: &str = "/proc/self/exe";

/// Copies this program: whoever starts it meanwhile starts the old one or the new one, and
/// never half of it.
///
/// # Errors
/// When the directory cannot be written to.
pub fn run(args: &AgentInstallArgs) -> anyhow::Result<ExitCode> {
    let draft = args.dir.join(format!(".{NAME}.{}", std::process::id()));
    let placed = copy(&draft, &args.dir.join(NAME));
    if placed.is_err() {
        // It may not even be there.
        let _ = fs::remove_file(&draft);
    }
    placed.with_context(|| format!("cannot install into {}", args.dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn copy(draft: &Path, target: &Path) -> std::io::Result<()> {
    fs::copy(SELF, draft)?;
    fs::set_permissions(draft, fs::Permissions::from_mode(0o755))?;
    fs::rename(draft, target)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_program_is_copied_whole_and_once() {
        let dir = tempfile::TempDir::new().unwrap();
        let args = AgentInstallArgs {
            dir: dir.path().to_owned(),
        };
        for _ in 0..2 {
            run(&args).unwrap();
        }
        let names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, [NAME]);
        let placed = fs::metadata(dir.path().join(NAME)).unwrap();
        assert_eq!(placed.len(), fs::metadata(SELF).unwrap().len());
        assert_eq!(placed.permissions().mode() & 0o777, 0o755);
        let absent = AgentInstallArgs {
            dir: dir.path().join("absent"),
        };
        let error = run(&absent).unwrap_err().to_string();
        assert!(error.starts_with("cannot install into "), "{error}");
    }
}
