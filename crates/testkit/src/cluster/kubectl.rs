//! The real kubectl.

use std::fmt;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use super::{Cluster, binary};
use crate::wait;

/// kubectl ended badly.
#[derive(Debug)]
pub struct KubectlError {
    /// The command, as one would type it.
    pub command: String,
    /// What it printed on standard error.
    pub stderr: String,
}

impl fmt::Display for KubectlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.command, self.stderr.trim())
    }
}

impl std::error::Error for KubectlError {}

impl Cluster {
    /// Runs kubectl as an administrator; the answer is its standard output.
    ///
    /// # Errors
    /// A [`KubectlError`] when it does not end well.
    pub fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.kubectl_with(args, "")
    }

    /// The same with something on its standard input.
    ///
    /// # Errors
    /// The same.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        let command = format!("kubectl {}", args.join(" "));
        let output = self
            .run_kubectl(args, input)
            .with_context(|| command.clone())?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(KubectlError { command, stderr }.into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Applies objects, server-side, as the field manager `test`.
    ///
    /// # Errors
    /// A [`KubectlError`] when one of them is refused.
    pub fn apply(&self, yaml: &str) -> anyhow::Result<String> {
        let args = ["apply", "--server-side", "--field-manager=test", "-f", "-"];
        self.kubectl_with(&args, yaml)
    }

    /// Waits until kubectl ends well and `look` finds what it looks for in its output.
    ///
    /// # Errors
    /// When `limit` has passed: with the last reason.
    pub async fn wait_for<T>(
        &self,
        args: &[&str],
        limit: Duration,
        mut look: impl FnMut(&str) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let what = format!("kubectl {}", args.join(" "));
        wait::until(&what, limit, || {
            let found = self.kubectl(args).and_then(|output| look(&output));
            async move { found }
        })
        .await
    }

    fn run_kubectl(&self, args: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut child = Command::new(binary()?)
            .arg("kubectl")
            .args(args)
            .env("KUBECONFIG", self.kubeconfig())
            // Not in the home of whoever runs tests.
            .env("KUBECACHEDIR", self.dir().join("kubectl-cache"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().expect("it is piped");
        let input = input.to_owned();
        // In a thread: it may print before it has read everything. That it does not read at
        // all is no error.
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output()?;
        let _ = writer.join();
        Ok(output)
    }
}
