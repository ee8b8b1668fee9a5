//! Istiod's command line and environment: what has no meaning here is said, and stops nothing.
//!
//! Source: spec/control-plane.md §1.1, §1.3, §5.5, §10 item 88.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use clap::{CommandFactory as _, FromArgMatches as _};
use model::finding::{Finding, ObjectRef, Severity};
use model::{ObjectKey, Str};

use super::{Cli, Command, ServeArgs};

/// Flags of istiod that are accepted without effect, and what is so instead.
const FLAGS: [(&str, &str); 22] = [
    ("caCertFile", "the serving certificate is issued by the CA"),
    ("cniNamespace", "pods of the CNI are not treated apart"),
    ("ctrlz_address", "there is no ControlZ"),
    ("ctrlz_port", "there is no ControlZ"),
    ("keepaliveInterval", "it is 30 s"),
    ("keepaliveTimeout", "it is 10 s"),
    ("kubernetesApiBurst", "writes are limited to 160 at once"),
    ("kubernetesApiQPS", "writes are limited to 80 a second"),
    ("log_caller", "lines name their module"),
    ("log_rotate", "logs go to standard error"),
    ("log_rotate_max_age", "logs go to standard error"),
    ("log_rotate_max_backups", "logs go to standard error"),
    ("log_rotate_max_size", "logs go to standard error"),
    ("log_stacktrace_level", "there are no stack traces"),
    ("log_target", "logs go to standard error"),
    ("networksConfig", "networks are read from objects"),
    ("plugins", "there are no plugins"),
    ("profile", "there is no profiler"),
    ("registries", "the registry is Kubernetes"),
    ("resync", "lists are followed by watches"),
    ("tlsCertFile", "the serving certificate is issued by the CA"),
    ("tlsKeyFile", "the serving certificate is issued by the CA"),
];

/// Flags without effect whose absence somebody may rely on.
const FLAGS_THAT_MATTER: [&str; 4] = ["caCertFile", "networksConfig", "tlsCertFile", "tlsKeyFile"];

/// Beginnings of the names of istiod's variables.
const PREFIXES: [&str; 20] = [
    "AMBIENT_",
    "AUTO_RELOAD_",
    "CA_",
    "CITADEL_",
    "DEBUG_",
    "DEFAULT_",
    "ENABLE_",
    "EXTERNAL_",
    "GATEWAY_",
    "INBOUND_",
    "INJECTION_",
    "ISTIO_",
    "ISTIOD_",
    "JWKS_",
    "LOCAL_",
    "MCS_",
    "METRICS_",
    "PILOT_",
    "SHARED_MESH_",
    "XDS_",
];

/// Variables of istiod that begin otherwise.
const NAMES: [&str; 9] = [
    "GRPC_KEEPALIVE_INTERVAL",
    "GRPC_KEEPALIVE_TIMEOUT",
    "JWT_RULE",
    "PRIORITIZED_LEADER_ELECTION",
    "SPIFFE_BUNDLE_ENDPOINTS",
    "TOKEN_ISSUER",
    "TRUSTED_GATEWAY_CIDR",
    "UNSAFE_ENABLE_ADMIN_ENDPOINTS",
    "VALIDATION_WEBHOOK_CONFIG_NAME",
];

/// Variables without effect that change who is trusted, or what is refused.
const THAT_MATTER: [&str; 4] = [
    "JWT_RULE",
    "SPIFFE_BUNDLE_ENDPOINTS",
    "TRUSTED_GATEWAY_CIDR",
    "VALIDATION_WEBHOOK_CONFIG_NAME",
];

/// Variables with the values that say what is so anyway.
const AS_IT_IS: [(&str, &[&str]); 23] = [
    ("AMBIENT_ENABLE_MULTI_NETWORK_INGRESS", &["false"]),
    ("AMBIENT_SCOPED_ADDRESS_PUSHES", &["true"]),
    ("CA_PROVIDER", &["Citadel", ""]),
    ("ENABLE_DEBUG_ENDPOINT_AUTH", &["true"]),
    ("ENABLE_DEBUG_ON_HTTP", &["true"]),
    ("ENABLE_GATEWAY_API_INFERENCE_EXTENSION", &["false"]),
    ("ENABLE_LEADER_ELECTION", &["true"]),
    ("ENABLE_MCS_HOST", &["false"]),
    ("EXTERNAL_CA", &[""]),
    ("EXTERNAL_ISTIOD", &["false"]),
    ("ISTIOD_CUSTOM_HOST", &[""]),
    ("PILOT_CERT_PROVIDER", &["istiod"]),
    ("PILOT_ENABLE_AGENTGATEWAY", &["false"]),
    ("PILOT_ENABLE_ALPHA_GATEWAY_API", &["false"]),
    ("PILOT_ENABLE_AMBIENT", &["true"]),
    ("PILOT_ENABLE_AMBIENT_WAYPOINTS", &["true"]),
    ("PILOT_ENABLE_ANALYSIS", &["false"]),
    ("PILOT_ENABLE_GATEWAY_API", &["true"]),
    ("PILOT_ENABLE_XDS_IDENTITY_CHECK", &["true"]),
    (
        "PILOT_GATEWAY_API_CONTROLLER_NAME",
        &["istio.io/gateway-controller"],
    ),
    ("PILOT_GATEWAY_API_DEFAULT_GATEWAYCLASS_NAME", &["istio"]),
    ("XDS_AUTH", &["true"]),
    ("XDS_AUTH_PLAINTEXT", &["false"]),
];

/// Reads a command line and an environment.
///
/// `serve` without `--config-dir`, also under its name `discovery`, takes flags and variables that
/// it does not know, and says so in [`ServeArgs::findings`]; all else is strict.
///
/// # Errors
/// What the person who called should read: help, or what is wrong.
pub fn read(
    words: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Cli, clap::Error> {
    let words: Vec<OsString> = words.into_iter().collect();
    let mut command = Cli::command();
    command.build();
    let Some((kept, mut findings)) = tolerate(&words, &command) else {
        let matches = command.try_get_matches_from(words)?;
        return Cli::from_arg_matches(&matches);
    };
    let known: BTreeSet<OsString> = variables(&command);
    let environment: Vec<(String, String)> = environment
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    refuse(&environment)
        .map_err(|text| command.error(clap::error::ErrorKind::InvalidValue, text))?;
    findings.extend(
        environment
            .iter()
            .filter(|(name, _)| !known.contains(OsStr::new(name)))
            .filter_map(|(name, value)| variable(name, value)),
    );
    let mut cli = Cli::from_arg_matches(&command.try_get_matches_from(kept)?)?;
    if let Some(levels) = &cli.log_output_level {
        findings.extend(log_filter(levels).1.into_iter().map(|scope| {
            let field = Str::from(scope);
            flag(
                "log_output_level",
                Severity::Info,
                format!("Log scope {field} is not one of ambientd; its level has no effect"),
            )
            .at(field)
        }));
    }
    if let Command::Serve(args) = &mut cli.command {
        findings.extend(addresses(args));
        findings.extend(tls(args));
        findings.sort_unstable();
        args.findings = findings;
    }
    Ok(cli)
}

/// The words that clap knows, and findings on the others; `None` when all must be known.
fn tolerate(words: &[OsString], command: &clap::Command) -> Option<(Vec<OsString>, Vec<Finding>)> {
    let is_serve = |word: &OsString| word == "serve" || word == "discovery";
    let at = words.iter().skip(1).position(is_serve)? + 1;
    let (before, after) = words.split_at_checked(at + 1)?;
    let is_directory = |word: &OsString| {
        let word = word.to_string_lossy();
        word == "--config-dir" || word.starts_with("--config-dir=")
    };
    let serve = command.find_subcommand("serve")?;
    if after.iter().any(is_directory) {
        return None;
    }
    let mut kept = before.to_vec();
    let mut ignored = Vec::new();
    let mut rest = after.iter().peekable();
    while let Some(word) = rest.next() {
        let text = word.to_string_lossy();
        let (name, has_value) = match text.split_once('=') {
            Some((name, _)) => (name, true),
            None => (&*text, false),
        };
        if !name.starts_with('-') || name == "--" || matches!(name, "-h" | "--help" | "-V") {
            kept.push(word.clone());
            continue;
        }
        if let Some(arg) = find(serve, name) {
            kept.push(word.clone());
            // The value may begin with a dash.
            let takes = arg.get_action().takes_values() && !arg.is_require_equals_set();
            if takes && !has_value && !is_short_with_value(name) {
                kept.extend(rest.next().cloned());
            }
        } else {
            let is_value = |next: &&OsString| !next.to_string_lossy().starts_with('-');
            if !has_value {
                let _ = rest.next_if(is_value);
            }
            ignored.push(unknown_flag(name.trim_start_matches('-')));
        }
    }
    Some((kept, ignored))
}

/// `-nfoo`, as opposed to `-n foo`.
fn is_short_with_value(name: &str) -> bool {
    !name.starts_with("--") && name.chars().count() > 2
}

fn find<'a>(command: &'a clap::Command, name: &str) -> Option<&'a clap::Arg> {
    command
        .get_arguments()
        .find(|arg| match name.strip_prefix("--") {
            Some(long) => {
                let aliases = arg.get_all_aliases().unwrap_or_default();
                arg.get_long() == Some(long) || aliases.contains(&long)
            }
            None => arg.get_short().is_some() && arg.get_short() == name.chars().nth(1),
        })
}

/// Variables that flags of `serve` are read from.
fn variables(command: &clap::Command) -> BTreeSet<OsString> {
    let serve = command.find_subcommand("serve").into_iter();
    serve
        .flat_map(clap::Command::get_arguments)
        .filter_map(|arg| arg.get_env().map(OsStr::to_owned))
        .collect()
}

fn flag(name: &str, severity: Severity, message: String) -> Finding {
    let object = ObjectRef {
        kind: Str::from("Flag"),
        key: ObjectKey::cluster(Str::from(format!("--{name}"))),
    };
    Finding::new("flag-ignored", severity, object, message, "Remove the flag")
}

fn unknown_flag(name: &str) -> Finding {
    if let Some((_, instead)) = FLAGS.iter().find(|(known, _)| *known == name) {
        let severity = if FLAGS_THAT_MATTER.contains(&name) {
            Severity::Warning
        } else {
            Severity::Info
        };
        return flag(name, severity, format!("The flag has no effect: {instead}"));
    }
    let message = "There is no such flag; it has no effect".to_owned();
    let mut finding = flag(name, Severity::Warning, message);
    finding.fix = "Correct its name or remove it".into();
    finding
}

/// Variables that would be dangerous to ignore.
fn refuse(environment: &[(String, String)]) -> Result<(), String> {
    for (name, value) in environment {
        match (name.as_str(), value.as_str()) {
            ("PILOT_CERT_PROVIDER", "kubernetes") => {
                return Err(
                    "PILOT_CERT_PROVIDER=kubernetes: that signer is gone; use istiod".into(),
                );
            }
            ("EXTERNAL_CA", value) if !value.is_empty() => {
                return Err(
                    "EXTERNAL_CA: certificates are signed by a CA of ours or a plugged-in one only; \
                     unset it, or plug in a CA in /etc/cacerts"
                        .into(),
                );
            }
            ("USE_CACERTS_FOR_SELF_SIGNED_CA", "1" | "t" | "T" | "true" | "TRUE" | "True") => {
                return Err(
                    "USE_CACERTS_FOR_SELF_SIGNED_CA: a root of our own is kept in the Secret \
                     istio-ca-secret alone, and a new one would break the trust of all that runs; \
                     mount the Secret cacerts at /etc/cacerts and unset the variable"
                        .into(),
                );
            }
            _ => {}
        }
    }
    Ok(())
}

/// A finding on a variable of istiod that no flag is read from. Its value is not told, for it may
/// be a secret.
fn variable(name: &str, value: &str) -> Option<Finding> {
    let is_istiods =
        NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if !is_istiods || is_service_link(name) {
        return None;
    }
    let as_it_is = AS_IT_IS.iter().find(|(known, _)| *known == name);
    let (severity, message) = match as_it_is {
        Some((_, values)) if values.contains(&value) => return None,
        Some((_, values)) => {
            let [first, ..] = values else { return None };
            let first = if first.is_empty() { "empty" } else { first };
            (
                Severity::Warning,
                format!("The variable has no effect: things are as if it was {first}"),
            )
        }
        None if THAT_MATTER.contains(&name) => (
            Severity::Warning,
            "The variable has no effect on who is trusted, or on what is refused".to_owned(),
        ),
        None => (Severity::Info, "The variable has no effect".to_owned()),
    };
    let object = ObjectRef {
        kind: Str::from("Environment"),
        key: ObjectKey::cluster(Str::from(name)),
    };
    let fix = "Remove the variable";
    Some(Finding::new("env-ignored", severity, object, message, fix))
}

/// Kubernetes tells every container of the Services of its namespace: `ISTIOD_SERVICE_HOST`.
fn is_service_link(name: &str) -> bool {
    let is_port = |rest: &str| rest.is_empty() || rest.starts_with('_');
    name.ends_with("_SERVICE_HOST")
        || name
            .split_once("_SERVICE_PORT")
            .is_some_and(|(_, rest)| is_port(rest))
        || name.split_once("_PORT").is_some_and(|(_, rest)| {
            let link = rest.strip_prefix('_').unwrap_or_default();
            rest.is_empty() || link.starts_with(|c: char| c.is_ascii_digit())
        })
}

/// Addresses and files that are not what the flags say.
fn addresses(args: &ServeArgs) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(addr) = args
        .grpc_addr
        .flatten()
        .filter(|addr| !addr.ip().is_loopback())
    {
        let message = format!(
            "Plain text asks nobody who it is, and is served on 127.0.0.1:{} only",
            addr.port()
        );
        findings.push(flag("grpcAddr", Severity::Warning, message));
    }
    findings
}

/// Limits of TLS that cannot be kept as they are written.
fn tls(args: &ServeArgs) -> Vec<Finding> {
    let version = args.tls_min_version.as_deref();
    let (_, ignored) = super::TlsLimits::read(version, &args.tls_cipher_suites);
    let finding = |(name, message): (&str, String)| {
        let mut finding = flag(name, Severity::Warning, message);
        finding.fix = "Name 1.2 or 1.3, and suites of TLS 1.2 that are offered".into();
        finding
    };
    ignored.into_iter().map(finding).collect()
}

/// Istiod's log levels as a filter, and the scopes that are none of ours.
pub fn log_filter(levels: &str) -> (String, Vec<String>) {
    let mut filter = Vec::new();
    let mut unknown = Vec::new();
    for part in levels
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (scope, level) = part.split_once(':').unwrap_or(("default", part));
        let level = match level {
            "none" => "off",
            "fatal" => "error",
            level => level,
        };
        let targets: &[&str] = match scope {
            "default" | "all" => &[],
            "ads" | "delta" | "xds" | "grpc" => &["ambientd_xds"],
            "ca" | "serverca" | "rootcertrotator" | "pkica" => &["ambientd_ca"],
            "authn" | "authentication" | "security" => &["ambientd_authn"],
            "kube" | "controllers" | "status" | "leader-election" | "klog" => {
                &["ambientd_kube_io", "kube"]
            }
            "model" | "ambient" | "krt" => &["ambientd"],
            "validation" | "validationServer" | "validationController" => &["ambientd::webhook"],
            scope => {
                unknown.push(scope.to_owned());
                continue;
            }
        };
        match targets {
            [] => filter.push(level.to_owned()),
            targets => filter.extend(targets.iter().map(|target| format!("{target}={level}"))),
        }
    }
    if filter.is_empty() {
        filter.push("info".to_owned());
    }
    (filter.join(","), unknown)
}

#[cfg(test)]
mod tests;
