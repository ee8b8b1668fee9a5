//! Reviews: what is asked, and what is answered.

use model::validate::{Problem, Verdict, validate};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Metrics;

/// Groups and versions of metrics: those of Istio's API, and one word for all others.
const GROUPS: [&str; 4] = [
    "extensions.istio.io",
    "networking.istio.io",
    "security.istio.io",
    "telemetry.istio.io",
];
const VERSIONS: [&str; 4] = ["v1", "v1alpha1", "v1alpha3", "v1beta1"];
const OTHER: &str = "other";
/// Versions of the envelope.
const V1: &str = "admission.k8s.io/v1";
const V1_BETA1: &str = "admission.k8s.io/v1beta1";
/// Length of one warning, characters.
const WARNING_CHARS_MAX: usize = 480;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Request,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    operation: String,
    #[serde(default)]
    kind: Kind,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Kind {
    group: String,
    version: String,
    #[serde(rename = "kind")]
    name: String,
}

/// The answer to the bytes of a review.
pub(super) fn answer(bytes: &[u8], metrics: &Metrics) -> Value {
    let read = serde_json::from_slice(bytes).map_err(|error| error.to_string());
    let review: Review = match read.and_then(known) {
        Ok(review) => review,
        Err(reason) => {
            let message = format!("this is no AdmissionReview that can be read: {reason}");
            count_failed(metrics, &Kind::default(), "undecodable");
            return respond(V1, "", &refused(message));
        }
    };
    let Review {
        api_version,
        request,
        ..
    } = review;
    let response = judge(&request, metrics);
    respond(&api_version, &request.uid, &response)
}

fn known(review: Review) -> Result<Review, String> {
    let is_known = matches!(review.api_version.as_str(), V1 | V1_BETA1);
    if review.kind != "AdmissionReview" || !is_known {
        return Err("neither version v1 nor v1beta1 of admission.k8s.io".to_owned());
    }
    Ok(review)
}

struct Response {
    allowed: bool,
    message: String,
    warnings: Vec<String>,
}

fn allowed(warnings: Vec<String>) -> Response {
    Response {
        allowed: true,
        message: String::new(),
        warnings,
    }
}

fn refused(message: String) -> Response {
    Response {
        allowed: false,
        message,
        warnings: Vec::new(),
    }
}

fn judge(request: &Request, metrics: &Metrics) -> Response {
    if !matches!(request.operation.as_str(), "CREATE" | "UPDATE") || is_leaving(request) {
        return allowed(Vec::new());
    }
    if !request.object.is_object() {
        count_failed(metrics, &request.kind, "undecodable");
        return refused("the review holds no object".to_owned());
    }
    let mut verdict = validate(&request.object);
    expressions(&mut verdict);
    if verdict.rejected.is_empty() {
        let labels = labels(&request.kind);
        metrics.passed.with_label_values(&labels).inc();
        return allowed(verdict.warnings);
    }
    count_failed(metrics, &request.kind, "invalid_resource");
    let Verdict {
        rejected, warnings, ..
    } = verdict;
    let one = |Problem { field, message }: &Problem| match field.as_str() {
        "" => message.clone(),
        field => format!("{field}: {message}"),
    };
    let problems: Vec<String> = rejected.iter().map(one).collect();
    let message = format!("configuration is invalid: {}", problems.join("; "));
    Response {
        allowed: false,
        message,
        warnings,
    }
}

/// An object that is being deleted, and not changed but for its finalizers, must be able to go.
fn is_leaving(request: &Request) -> bool {
    let deletion = request.object.pointer("/metadata/deletionTimestamp");
    let is_deleted = deletion.is_some_and(Value::is_string);
    is_deleted && request.object.get("spec") == request.old_object.get("spec")
}

/// What proxies cannot read as a regular expression.
fn expressions(verdict: &mut Verdict) {
    for one in std::mem::take(&mut verdict.expressions) {
        if let Err(message) = envoy::check_regex(&one.message) {
            let field = one.field;
            verdict.rejected.push(Problem { field, message });
        }
    }
}

fn respond(version: &str, uid: &str, response: &Response) -> Value {
    let mut out = Map::new();
    out.insert("uid".to_owned(), uid.into());
    out.insert("allowed".to_owned(), response.allowed.into());
    if !response.message.is_empty() {
        let message = one_line(&response.message, usize::MAX);
        out.insert("status".to_owned(), json!({"message": message}));
    }
    if !response.warnings.is_empty() {
        let warnings = response.warnings.iter();
        let warnings = warnings.map(|text| one_line(text, WARNING_CHARS_MAX));
        out.insert("warnings".to_owned(), warnings.collect());
    }
    json!({"apiVersion": version, "kind": "AdmissionReview", "response": out})
}

fn one_line(text: &str, chars_max: usize) -> String {
    let chars = text.chars().take(chars_max);
    chars
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn count_failed(metrics: &Metrics, kind: &Kind, reason: &str) {
    let [group, version, kind] = labels(kind);
    let labels = [group, version, kind, reason];
    metrics.failed.with_label_values(&labels).inc();
}

/// Labels of metrics: what a stranger writes makes no new ones.
fn labels(kind: &Kind) -> [&str; 3] {
    let known = |text: &str, words: &[&'static str]| {
        let word = words.iter().find(|word| **word == text);
        word.copied().unwrap_or(OTHER)
    };
    let group = known(&kind.group, &GROUPS);
    let version = known(&kind.version, &VERSIONS);
    [group, version, known(&kind.name, &model::validate::KINDS)]
}
