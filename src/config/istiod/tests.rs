#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use super::*;

fn serve(words: &[&str], environment: &[(&str, &str)]) -> Result<(Cli, ServeArgs), String> {
    let words = ["ambientd"].iter().chain(words).map(OsString::from);
    let environment = environment.iter().map(|(a, b)| (a.into(), b.into()));
    let cli = read(words, environment).map_err(|error| error.to_string())?;
    match &cli.command {
        Command::Serve(args) => {
            let args = (**args).clone();
            Ok((cli, args))
        }
        other => panic!("{other:?}"),
    }
}

fn args(words: &[&str]) -> ServeArgs {
    serve(words, &[]).unwrap().1
}

/// Name and severity of each finding.
fn told(args: &ServeArgs) -> Vec<(&str, Severity)> {
    let findings = args.findings.iter();
    findings
        .map(|finding| (finding.object.key.name.as_str(), finding.severity))
        .collect()
}

#[test]
fn the_arguments_of_the_chart_are_taken_without_a_word() {
    let chart = [
        "discovery",
        "--monitoringAddr=:15014",
        "--log_output_level=default:info",
        "--domain",
        "cluster.local",
        "--keepaliveMaxServerConnectionAge",
        "30m",
        "--log_as_json",
    ];
    let environment = [
        ("REVISION", "default"),
        ("PILOT_CERT_PROVIDER", "istiod"),
        ("POD_NAME", "istiod-1"),
        ("POD_NAMESPACE", "istio-system"),
        ("SERVICE_ACCOUNT", "istiod"),
        ("KUBECONFIG", "/var/run/secrets/remote/config"),
        ("CA_TRUSTED_NODE_ACCOUNTS", "istio-system/ztunnel"),
        ("PILOT_ENABLE_AMBIENT", "true"),
        ("PILOT_ENABLE_ANALYSIS", "false"),
        ("CLUSTER_ID", "Kubernetes"),
        ("PLATFORM", ""),
        ("EXTERNAL_ISTIOD", "false"),
        ("GOMEMLIMIT", "2147483648"),
        ("GOMAXPROCS", "1"),
        ("PILOT_CA_CERT_CONFIGMAP", "istio-ca-root-cert"),
        ("PILOT_CRL_CONFIGMAP", "istio-ca-crl"),
        ("ISTIOD_SERVICE_HOST", "10.96.0.1"),
        ("ISTIOD_SERVICE_PORT_GRPC_XDS", "15010"),
        ("ISTIOD_PORT", "tcp://10.96.0.1:15010"),
        ("ISTIOD_PORT_15010_TCP_ADDR", "10.96.0.1"),
        ("HOME", "/"),
    ];
    let (cli, args) = serve(&chart, &environment).unwrap();
    assert!(cli.log_as_json.is_on());
    assert_eq!(cli.log_output_level.as_deref(), Some("default:info"));
    assert_eq!(told(&args), []);
    assert_eq!(args.config_dir, None);
    assert_eq!(args.debug_addr().to_string(), "[::]:15014");
    assert_eq!(args.shutdown_duration(), Duration::from_secs(10));
    assert_eq!(args.connection_age_max, Duration::from_secs(1800));
}

#[test]
fn flags_of_istiod_have_their_effect() {
    let args = args(&[
        "discovery",
        "--httpAddr",
        ":9080",
        "--httpsAddr=",
        "--grpcAddr=:9010",
        "--secureGRPCAddr=0.0.0.0:9012",
        "--monitoringAddr=127.0.0.1:9014",
        "--clusterID",
        "east",
        "--clusterAliases",
        "old=east,other=west",
        "--shutdownDuration",
        "3s",
        "-n",
        "mesh",
        "--domain=a",
        "--domain=example.org",
    ]);
    assert_eq!(args.ready_addr.to_string(), "[::]:9080");
    assert_eq!(args.webhook_addr, None);
    assert_eq!(args.xds_addr.to_string(), "0.0.0.0:9012");
    assert_eq!(args.debug_addr().to_string(), "127.0.0.1:9014");
    let plaintext = args.plaintext_addr().map(|addr| addr.to_string());
    assert_eq!(plaintext.as_deref(), Some("127.0.0.1:9010"));
    assert_eq!(args.cluster_ids(), ["east", "old"]);
    assert_eq!(args.shutdown_duration(), Duration::from_secs(3));
    assert_eq!(args.mesh.system_namespace, "mesh");
    assert_eq!(args.mesh.domain, "example.org");
    assert_eq!(told(&args), [("--grpcAddr", Severity::Warning)]);
}

#[test]
fn every_flag_without_effect_is_told_once_and_its_value_is_eaten() {
    for (name, _) in FLAGS {
        for words in [
            vec![format!("--{name}"), "x".to_owned()],
            vec![format!("--{name}=x")],
        ] {
            let mut all = vec!["serve"];
            all.extend(words.iter().map(String::as_str));
            all.extend(["--domain", "example.org"]);
            let args = args(&all);
            assert_eq!(args.mesh.domain, "example.org", "{all:?}");
            let told: Vec<&str> = told(&args).into_iter().map(|(name, _)| name).collect();
            assert_eq!(told, [format!("--{name}")], "{all:?}");
        }
    }
}

#[test]
fn what_nobody_knows_is_a_warning_and_secrets_are_not_repeated() {
    let words = ["serve", "--frobnicate", "s3cret", "--domian=s3cret", "-x"];
    let environment = [
        ("PILOT_SOMETHING", "s3cret"),
        ("XDS_AUTH", "false"),
        ("AMBIENT_ENABLE_MULTI_NETWORK_INGRESS", "true"),
        ("PATH", "/bin"),
    ];
    let (_, args) = serve(&words, &environment).unwrap();
    assert_eq!(
        told(&args),
        [
            ("AMBIENT_ENABLE_MULTI_NETWORK_INGRESS", Severity::Warning),
            ("PILOT_SOMETHING", Severity::Info),
            ("XDS_AUTH", Severity::Warning),
            ("--domian", Severity::Warning),
            ("--frobnicate", Severity::Warning),
            ("--x", Severity::Warning),
        ]
    );
    assert!(!format!("{:?}", args.findings).contains("s3cret"));
}

#[test]
fn what_must_not_be_ignored_is_refused() {
    for (name, value) in [
        ("PILOT_CERT_PROVIDER", "kubernetes"),
        ("EXTERNAL_CA", "ISTIOD_RA_KUBERNETES_API"),
        ("USE_CACERTS_FOR_SELF_SIGNED_CA", "true"),
    ] {
        let error = serve(&["discovery"], &[(name, value)]).unwrap_err();
        assert!(error.contains(name), "{error}");
    }
    assert!(serve(&["discovery"], &[("EXTERNAL_CA", "")]).is_ok());
}

#[test]
fn variables_that_change_who_is_trusted_are_warned_about() {
    let given = [
        ("JWT_RULE", "{}"),
        ("GRPC_KEEPALIVE_TIMEOUT", "1s"),
        ("HOME", "/"),
    ];
    let (_, args) = serve(&["discovery"], &given).unwrap();
    let told = told(&args);
    let expected = [
        ("GRPC_KEEPALIVE_TIMEOUT", Severity::Info),
        ("JWT_RULE", Severity::Warning),
    ];
    for it in expected {
        assert!(told.contains(&it), "{told:?}");
    }
    assert!(!told.iter().any(|(name, _)| *name == "HOME"));
}

#[test]
fn files_are_served_under_strict_flags() {
    let of = |more: &[&str]| {
        let words = ["serve", "--config-dir", "x"];
        serve(&words.iter().chain(more).copied().collect::<Vec<_>>(), &[])
    };
    let (_, args) = of(&[]).unwrap();
    assert_eq!(args.debug_addr().to_string(), "127.0.0.1:15014");
    assert_eq!(args.shutdown_duration(), Duration::ZERO);
    for more in [["--frobnicate"], ["--kubeconfig=x"], ["--context=x"]] {
        assert!(of(&more).is_err(), "{more:?}");
    }
}

#[test]
fn log_levels_of_istiod_become_a_filter() {
    let filter = |text: &str| log_filter(text);
    assert_eq!(filter("default:info"), ("info".to_owned(), vec![]));
    assert_eq!(filter("debug"), ("debug".to_owned(), vec![]));
    assert_eq!(
        filter("default:none,ads:debug,wasm:info"),
        ("off,ambientd_xds=debug".to_owned(), vec!["wasm".to_owned()])
    );
    assert_eq!(filter("").0, "info");
}
