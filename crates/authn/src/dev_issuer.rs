//! Tokens for meshes without Kubernetes: issued by ambientd, reviewed by ambientd.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use futures::future::BoxFuture;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::authenticator::{Clock, is_name};
use crate::review::{EXTRA_POD_NAME, EXTRA_POD_UID};
use crate::{PodRef, Review, ReviewError, Token, TokenReviewer};

/// `iss` of our tokens.
const ISSUER: &str = "ambientd";
/// Directory of the key inside the state directory.
const TOKENS_DIR: &str = "tokens";
const KEY_FILE: &str = "signing-key.der";
/// Longest life of a token: a year.
const TTL_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Length of a key file, bytes.
const KEY_BYTES_MAX: u64 = 4096;

/// Whether the pod of a namespace that a token is bound to still is what it was.
pub type PodCheck = Arc<dyn Fn(&str, &str, &PodRef) -> bool + Send + Sync>;

/// Why the issuer cannot work.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The key could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key is there, but it cannot be used. It is never replaced.
    #[error("{path}: {reason}")]
    Corrupt {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// What was asked for makes no token.
    #[error("{0}")]
    Request(String),
    /// The cryptography failed.
    #[error("cannot sign a token")]
    Crypto,
}

/// What a token is to say.
#[derive(Clone, Debug)]
pub struct TokenRequest<'a> {
    /// Namespace of the account.
    pub ns: &'a str,
    /// Service account.
    pub sa: &'a str,
    /// The pod that the token is bound to.
    pub pod: Option<&'a PodRef>,
    /// Whom it is for.
    pub audience: &'a str,
    /// How long it lives; at most a year.
    pub ttl: Duration,
}

/// Issues and reviews tokens with a key of its own.
pub struct DevIssuer {
    signing: EncodingKey,
    verifying: DecodingKey,
    clock: Clock,
    pods: Option<PodCheck>,
}

impl fmt::Debug for DevIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevIssuer").finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Vec<String>,
    exp: u64,
    iat: u64,
    nbf: u64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Serialize, Deserialize)]
struct Kubernetes {
    namespace: String,
    serviceaccount: Named,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Named>,
}

#[derive(Serialize, Deserialize)]
struct Named {
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    uid: String,
}

// === impl DevIssuer ===

impl DevIssuer {
    /// Reads the key under `<dir>/tokens`, or creates it when there is none. Two
    /// processes that create at once end up with one key.
    ///
    /// # Errors
    /// A key that is broken or open to others is an error and stays as it is.
    pub fn load_or_create(dir: &Path, clock: Clock) -> Result<Self, IssuerError> {
        let path = dir.join(TOKENS_DIR).join(KEY_FILE);
        let key = match read(&path) {
            Err(IssuerError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                create(&path)?;
                read(&path)?
            }
            read => read?,
        };
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key).map_err(|_| {
                IssuerError::Corrupt {
                    path,
                    reason: "not an ECDSA P-256 key in PKCS#8 form",
                }
            })?;
        Ok(Self {
            signing: EncodingKey::from_ec_der(&key),
            verifying: DecodingKey::from_ec_der(pair.public_key().as_ref()),
            clock,
            pods: None,
        })
    }

    /// Refuses tokens that are bound to pods of which the check says no, as an API
    /// server refuses those of deleted pods. Its arguments: namespace, service
    /// account, pod.
    pub fn with_pods(mut self, check: PodCheck) -> Self {
        self.pods = Some(check);
        self
    }

    /// A token in the form of a projected service account token.
    ///
    /// # Errors
    /// [`IssuerError::Request`] for names that are none and lives that are too long.
    pub fn issue(&self, request: &TokenRequest<'_>) -> Result<Token, IssuerError> {
        for name in [request.ns, request.sa] {
            if !is_name(name) {
                return Err(IssuerError::Request(format!("{name:?} is not a name")));
            }
        }
        if request.ttl > TTL_MAX || request.ttl.is_zero() || request.audience.is_empty() {
            let text = "a token needs an audience and lives for at most 365 days";
            return Err(IssuerError::Request(text.to_owned()));
        }
        let now = seconds((self.clock)());
        let named = |name: &str, uid: &str| Named {
            name: name.to_owned(),
            uid: uid.to_owned(),
        };
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: format!("system:serviceaccount:{}:{}", request.ns, request.sa),
            aud: vec![request.audience.to_owned()],
            exp: now.saturating_add(request.ttl.as_secs()),
            iat: now,
            nbf: now,
            kubernetes: Kubernetes {
                namespace: request.ns.to_owned(),
                serviceaccount: named(request.sa, ""),
                pod: request.pod.map(|pod| named(&pod.name, &pod.uid)),
            },
        };
        let text = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.signing)
            .map_err(|_| IssuerError::Crypto)?;
        Token::new(&text).map_err(|_| IssuerError::Crypto)
    }

    fn check(&self, token: &Token, audiences: &[String]) -> Result<Review, &'static str> {
        // Audience and times are checked below: the one as a reviewer does, the
        // others against our clock.
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
        validation.validate_aud = false;
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let claims = jsonwebtoken::decode::<Claims>(token.expose(), &self.verifying, &validation)
            .map_err(|_| "not a token of this issuer")?
            .claims;
        let now = seconds((self.clock)());
        if claims.exp <= now {
            return Err("the token has expired");
        }
        if claims.nbf > now || claims.iat > now {
            return Err("the token is not valid yet");
        }
        let audiences: Vec<String> = audiences
            .iter()
            .filter(|audience| claims.aud.contains(audience))
            .cloned()
            .collect();
        if audiences.is_empty() {
            return Err("the token is for another audience");
        }
        let Kubernetes {
            namespace,
            serviceaccount,
            pod,
        } = claims.kubernetes;
        if claims.sub != format!("system:serviceaccount:{namespace}:{}", serviceaccount.name) {
            return Err("the claims of the token contradict each other");
        }
        let mut review = Review {
            authenticated: true,
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ],
            username: claims.sub,
            audiences,
            expires: UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp)),
            ..Review::default()
        };
        if let Some(pod) = pod {
            let bound = PodRef {
                name: pod.name.as_str().into(),
                uid: pod.uid.as_str().into(),
            };
            let gone = |check: &PodCheck| !check(&namespace, &serviceaccount.name, &bound);
            if self.pods.as_ref().is_some_and(gone) {
                return Err("the pod of the token is gone");
            }
            let mut put = |key: &str, value| review.extra.insert(key.to_owned(), vec![value]);
            put(EXTRA_POD_NAME, pod.name);
            put(EXTRA_POD_UID, pod.uid);
        }
        Ok(review)
    }
}

impl TokenReviewer for DevIssuer {
    fn review<'a>(
        &'a self,
        token: &'a Token,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Review, ReviewError>> {
        let review = self.check(token, audiences).unwrap_or_else(|error| Review {
            error: error.to_owned(),
            ..Review::default()
        });
        Box::pin(std::future::ready(Ok(review)))
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, IssuerError> {
    let failed = |source| IssuerError::Io {
        path: path.to_owned(),
        source,
    };
    let corrupt = |reason| IssuerError::Corrupt {
        path: path.to_owned(),
        reason,
    };
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > KEY_BYTES_MAX {
        return Err(corrupt("not a key"));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(corrupt("the key is open to others; its mode must be 0600"));
    }
    fs::read(path).map(Zeroizing::new).map_err(failed)
}

/// Writes a fresh key and links it into place: whoever is second leaves the first.
fn create(path: &Path) -> Result<(), IssuerError> {
    let failed = |source| IssuerError::Io {
        path: path.to_owned(),
        source,
    };
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
        .map_err(|_| IssuerError::Crypto)?;
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed)?;
    }
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(key.as_ref())?;
            file.sync_all()
        })
        .and_then(|()| fs::hard_link(&temporary, path));
    let _ = fs::remove_file(&temporary);
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(failed),
    }
}

#[cfg(test)]
mod tests;
