//! How the API server is reached.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

mod guard;

pub(crate) use guard::{Guard, guarded};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How to reach the API server.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// A kubeconfig to use; otherwise the service account of the pod, and outside of a cluster
    /// `$KUBECONFIG` or `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig other than its current one.
    pub context: Option<String>,
    /// How long the beginning of an answer may take.
    pub request_timeout: Duration,
    /// How long an answer that has begun may pause; a watch hears of the server every minute.
    pub idle_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            context: None,
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(90),
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error("cannot use kubeconfig {}", path.display())]
    Kubeconfig {
        /// The file that was asked for.
        path: PathBuf,
        /// Why.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// Neither a service account nor a kubeconfig.
    #[error(
        "no Kubernetes API server is known: this is not a pod with a service account ({in_cluster}), \
         and there is no usable kubeconfig; run in a cluster, set --kubeconfig or KUBECONFIG, \
         or serve files with --config-dir"
    )]
    Nowhere {
        /// Why the service account was not used.
        in_cluster: kube::config::InClusterError,
        /// Why the kubeconfig was not used.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// The configuration cannot be turned into a client.
    #[error("cannot make a Kubernetes client")]
    Client(#[source] kube::Error),
}

/// A client. Nothing is asked of the API server yet, so it may be away.
///
/// # Errors
/// When there is no configuration, or one that cannot be used.
pub async fn connect(options: &ClientOptions) -> Result<Client, ConnectError> {
    let mut config = config(options).await?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // A watch lives for minutes; who is silent is noticed per answer instead.
    config.read_timeout = None;
    config.write_timeout = Some(options.request_timeout);
    // Whoever asks here retries with backoff, and has to know that the server does not answer.
    config.default_retry = false;
    let client = Client::try_from(config).map_err(ConnectError::Client)?;
    let guard = Guard {
        request_timeout: options.request_timeout,
        idle_timeout: options.idle_timeout,
        ..Guard::default()
    };
    Ok(guarded(client, guard))
}

async fn config(options: &ClientOptions) -> Result<Config, ConnectError> {
    let choice = KubeConfigOptions {
        context: options.context.clone(),
        ..KubeConfigOptions::default()
    };
    if let Some(path) = &options.kubeconfig {
        let problem = |source| ConnectError::Kubeconfig {
            path: path.clone(),
            source,
        };
        let kubeconfig = Kubeconfig::read_from(path).map_err(problem)?;
        return Config::from_custom_kubeconfig(kubeconfig, &choice)
            .await
            .map_err(problem);
    }
    let in_cluster = match Config::incluster() {
        Ok(config) => return Ok(config),
        Err(error) => error,
    };
    Config::from_kubeconfig(&choice)
        .await
        .map_err(|source| ConnectError::Nowhere { in_cluster, source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_is_missing_is_named() {
        let options = ClientOptions {
            kubeconfig: Some("/nowhere/config".into()),
            ..ClientOptions::default()
        };
        let Err(error) = connect(&options).await else {
            panic!("there is no such file");
        };
        assert_eq!(error.to_string(), "cannot use kubeconfig /nowhere/config");
    }
}
