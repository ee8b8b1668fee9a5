//! The commands `token` and `ca`: credentials of meshes without Kubernetes, and the rotation of
//! the root also in a cluster.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use authn::{DevIssuer, PodRef, TokenRequest};
use ca::CaError;
use ca::root::{self, RootStore};
use kube_io::client::{self, ClientOptions};
use kube_io::root_store::{SECRET_NAME, SecretStore};
use model::object::Input;
use model::{Object, ObjectKey};
use source::Directory;

use crate::commands;
use crate::config::{CaArgs, CaCommand, RotateArgs, RotateStep, TokenArgs};

/// `ambientd token`: prints a token, without a newline, for that is what proxies read.
///
/// # Errors
/// When the key cannot be read or made, or the pod is not to be found.
pub fn token(args: &TokenArgs) -> anyhow::Result<ExitCode> {
    let pod = args.pod.as_ref().map(|name| bound_pod(args, name));
    let pod = pod.transpose()?;
    let issuer = DevIssuer::load_or_create(&args.state_dir, Arc::new(SystemTime::now))
        .with_context(|| format!("--state-dir {}", args.state_dir.display()))?;
    let token = issuer.issue(&TokenRequest {
        ns: &args.namespace,
        sa: &args.service_account,
        pod: pod.as_ref(),
        audience: &args.audience,
        ttl: args.ttl,
    })?;
    commands::print(token.expose())?;
    Ok(ExitCode::SUCCESS)
}

/// The pod by its uid, or as the directory has it.
fn bound_pod(args: &TokenArgs, name: &str) -> anyhow::Result<PodRef> {
    let pod = |uid: &str| PodRef {
        name: name.into(),
        uid: uid.into(),
    };
    let Some(dir) = &args.config_dir else {
        return Ok(pod(args.pod_uid.as_deref().unwrap_or_default()));
    };
    let key = ObjectKey::new(args.namespace.as_str(), name);
    let inputs = Directory::load(dir).with_context(|| format!("--config-dir {}", dir.display()))?;
    let objects = inputs.iter().flat_map(|input| match input {
        Input::Resync(_, objects) => objects.as_slice(),
        _ => &[],
    });
    let found = objects.into_iter().find_map(|object| match object {
        Object::Pod(pod) if pod.meta.key == key => Some(pod),
        _ => None,
    });
    let Some(found) = found else {
        bail!("--pod {name}: there is no pod {key} in {}", dir.display());
    };
    let account = found.ok().map(|body| body.service_account.as_str());
    if account.is_some_and(|account| account != args.service_account) {
        bail!(
            "--pod {name}: the pod's service account is {}, not {}",
            account.unwrap_or_default(),
            args.service_account
        );
    }
    Ok(pod(&found.meta.uid))
}

/// `ambientd ca`: the steps of the root's rotation.
///
/// # Errors
/// When the root cannot be read or written, or the step is not due.
pub fn ca(args: &CaArgs) -> anyhow::Result<ExitCode> {
    let CaCommand::Rotate(rotate) = &args.command;
    let (done, next) = if rotate.in_cluster || rotate.kubeconfig.is_some() {
        step_in_cluster(rotate)?
    } else {
        step(&ca::FileStore::new(&rotate.state_dir), rotate)?
    };
    commands::print(format!("{done}\n{next}").trim_end())?;
    commands::print("\n")?;
    Ok(ExitCode::SUCCESS)
}

/// Makes a step; says what is so now, and what comes next.
fn step(
    store: &dyn RootStore,
    rotate: &RotateArgs,
) -> Result<(&'static str, &'static str), CaError> {
    Ok(match rotate.step {
        RotateStep::Prepare => {
            root::prepare(store, rotate.trust_domain.as_deref(), SystemTime::now())?;
            (
                "a second root is trusted; the first one still signs",
                "When every proxy has the new roots (certificates are renewed within a day): --step switch",
            )
        }
        RotateStep::Switch => {
            root::switch(store)?;
            (
                "the new root signs; both are trusted",
                "When every proxy has a certificate of the new root: --step finish",
            )
        }
        RotateStep::Finish => {
            root::finish(store)?;
            ("only the new root is trusted", "")
        }
    })
}

/// The same on the Secret, which is written as it was read or not at all: servers that run may
/// renew the root at the same time.
fn step_in_cluster(rotate: &RotateArgs) -> anyhow::Result<(&'static str, &'static str)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let client = runtime.block_on(client::connect(&ClientOptions {
        kubeconfig: rotate.kubeconfig.clone(),
        context: rotate.context.clone(),
        ..ClientOptions::default()
    }))?;
    let store = SecretStore::new(client, &rotate.namespace, runtime.handle().clone());
    let place = || format!("Secret {}/{SECRET_NAME}", rotate.namespace);
    match step(&store, rotate) {
        Err(CaError::Conflict) => {
            bail!("{} was changed meanwhile; try again", place())
        }
        result => result.with_context(place),
    }
}
