//! Our own root: renewed over its key, replaced step by step, never by accident.

use std::fs;
use std::path::Path;

use super::support::{MemoryStore, authority, csr, openssl_verify};
use super::{DAY, HOUR, id, now};
use crate::root::{self, RootStore};
use crate::{Authority, CaError, FileStore, RootPolicy, Source, TtlPolicy};

const ALICE: &str = "spiffe://cluster.local/ns/a/sa/alice";

fn sign(authority: &Authority) -> Vec<String> {
    authority.sign(&csr(), &id(ALICE), 0, now()).unwrap()
}

fn verifies(response: &[String], roots: &str) -> bool {
    // Without openssl the rule of bundles is still asserted by the callers.
    openssl_verify(response, roots, now()).unwrap_or(true)
}

#[test]
fn leaves_of_both_roots_verify_at_every_step_of_a_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path());
    let running = Authority::new("cluster.local", TtlPolicy::default()).unwrap();
    let source = Source::Own(std::sync::Arc::new(store.clone()));
    source.start(&running, now()).unwrap();
    let of_old = sign(&running);
    let old = of_old[1].clone();
    assert!(matches!(root::switch(&store), Err(CaError::Rotation(_))));
    assert!(matches!(root::finish(&store), Err(CaError::Rotation(_))));

    root::prepare(&store, None, now()).unwrap();
    let prepared = store.load().unwrap().unwrap();
    root::prepare(&store, None, now()).unwrap();
    assert!(
        store.load().unwrap().unwrap() == prepared,
        "again changes nothing"
    );
    assert!(source.reload(&running, now()).unwrap());
    let between = sign(&running);
    let both = between[1].clone();
    assert_eq!(running.bundle().unwrap().root_count(), 2);
    assert!(both.starts_with(&old));
    let new = both[old.len()..].to_owned();
    // The old root still signs, so those that know only it are served.
    assert!(verifies(&between, &old) && verifies(&between, &both));

    root::switch(&store).unwrap();
    assert!(source.reload(&running, now()).unwrap());
    let of_new = sign(&running);
    assert_eq!(of_new[1], both);
    assert!(verifies(&of_new, &new) && verifies(&of_new, &both) && verifies(&of_old, &both));
    assert!(openssl_verify(&of_new, &old, now()) != Some(true));
    let error = root::prepare(&store, None, now());
    assert!(
        matches!(error, Err(CaError::Rotation(_))),
        "one rotation at a time"
    );

    root::finish(&store).unwrap();
    assert!(source.reload(&running, now()).unwrap());
    let last = sign(&running);
    assert_eq!(last[1], new);
    assert!(verifies(&last, &new) && verifies(&of_new, &new));
    assert!(openssl_verify(&of_old, &new, now()) != Some(true));

    let mut files: Vec<_> = fs::read_dir(store.dir())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, [".lock", "root-cert.pem", "root-key.pem"]);
    assert!(!source.reload(&running, now()).unwrap(), "nothing new");
}

#[test]
fn a_new_root_names_the_trust_domain_of_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path());
    root::load_or_create(&store, "corp.example", now()).unwrap();
    let before = store.load().unwrap().unwrap();
    let error = root::prepare(&store, Some("cluster.local"), now()).unwrap_err();
    assert!(
        matches!(&error, CaError::TrustDomain { root, .. } if root == "corp.example"),
        "{error}"
    );
    assert!(store.load().unwrap().unwrap() == before);
    root::prepare(&store, None, now()).unwrap();
    root::prepare(&store, Some("corp.example"), now()).unwrap();
    root::switch(&store).unwrap();
    let pem = store.load().unwrap().unwrap().certificate_pem().unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let cert = pem.parse_x509().unwrap();
    let names: Vec<_> = cert.subject().iter_organization().collect();
    assert_eq!(names.len(), 1);
    assert_eq!(names[0].as_str().unwrap(), "corp.example");
}

#[test]
fn a_rotation_that_a_server_did_not_see_is_not_taken_at_once() {
    let store = MemoryStore::default();
    let running = authority(&store, now());
    let before = sign(&running)[1].clone();
    root::prepare(&store, None, now()).unwrap();
    root::switch(&store).unwrap();
    root::finish(&store).unwrap();
    let result = running.install(root::load(&store, now()).unwrap(), RootPolicy::Renewable);
    assert!(matches!(result, Err(CaError::RootChange(_))));
    assert_eq!(sign(&running)[1], before);
}

#[test]
fn a_root_is_renewed_in_its_last_fifth_over_its_key() {
    let store = MemoryStore::default();
    let began = now() - 3000 * DAY;
    let old = root::load_or_create(&store, "cluster.local", began).unwrap();
    // 3650 days: a fifth is 730.
    assert!(!root::renew_if_due(&store, began + 2919 * DAY).unwrap());
    let running = Authority::new("cluster.local", TtlPolicy::default()).unwrap();
    running.install(old, RootPolicy::Renewable).unwrap();
    let of_old = sign(&running);

    assert!(root::renew_if_due(&store, now()).unwrap());
    assert!(!root::renew_if_due(&store, now()).unwrap(), "once");
    let renewed = root::load(&store, now()).unwrap();
    assert!(renewed.not_after() > now() + 3640 * DAY);
    assert!(running.install(renewed, RootPolicy::Renewable).unwrap());
    let of_new = sign(&running);
    assert_ne!(of_old[1], of_new[1]);
    for (response, roots) in [(&of_old, &of_new[1]), (&of_new, &of_old[1])] {
        assert!(
            verifies(response, roots),
            "either root verifies the leaves of the other"
        );
    }
}

#[test]
fn a_renewal_that_cannot_be_written_changes_nothing() {
    /// Somebody else always writes first.
    struct Raced(MemoryStore);
    impl RootStore for Raced {
        fn load(&self) -> Result<Option<root::StoredRoot>, CaError> {
            self.0.load()
        }
        fn create(&self, root: &root::StoredRoot) -> Result<root::Created, CaError> {
            self.0.create(root)
        }
        fn replace(&self, _: &root::StoredRoot, _: &root::StoredRoot) -> Result<(), CaError> {
            Err(CaError::Conflict)
        }
        fn place(&self, part: crate::Part) -> std::path::PathBuf {
            self.0.place(part)
        }
    }
    let store = Raced(MemoryStore::default());
    root::load_or_create(&store, "cluster.local", now() - 3500 * DAY).unwrap();
    let before = store.load().unwrap();
    assert!(matches!(
        root::renew_if_due(&store, now()),
        Err(CaError::Conflict)
    ));
    assert!(store.load().unwrap() == before);
}

#[test]
fn the_loser_of_a_race_uses_the_root_of_the_winner() {
    /// Empty at the first look, taken at the creation.
    struct Late(MemoryStore, std::sync::atomic::AtomicBool);
    impl RootStore for Late {
        fn load(&self) -> Result<Option<root::StoredRoot>, CaError> {
            if self.1.swap(true, std::sync::atomic::Ordering::SeqCst) {
                self.0.load()
            } else {
                Ok(None)
            }
        }
        fn create(&self, root: &root::StoredRoot) -> Result<root::Created, CaError> {
            self.0.create(root)
        }
        fn replace(&self, a: &root::StoredRoot, b: &root::StoredRoot) -> Result<(), CaError> {
            self.0.replace(a, b)
        }
        fn place(&self, part: crate::Part) -> std::path::PathBuf {
            self.0.place(part)
        }
    }
    let winner = MemoryStore::default();
    let bundle = root::load_or_create(&winner, "cluster.local", now())
        .unwrap()
        .bundle()
        .clone();
    let late = Late(winner, false.into());
    let signer = root::load_or_create(&late, "cluster.local", now()).unwrap();
    assert_eq!(*signer.bundle(), bundle);
}

#[test]
fn a_root_that_is_gone_or_garbled_while_running_is_an_error_and_signing_goes_on() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 4] = [
        ("gone", |ca| fs::remove_dir_all(ca).unwrap()),
        ("key gone", |ca| {
            fs::remove_file(ca.join("root-key.pem")).unwrap();
        }),
        ("garbage", |ca| {
            fs::write(ca.join("root-cert.pem"), "garbage").unwrap();
        }),
        ("key pasted", |ca| {
            let key = fs::read_to_string(ca.join("root-key.pem")).unwrap();
            let cert = fs::read_to_string(ca.join("root-cert.pem")).unwrap();
            fs::write(ca.join("root-cert.pem"), format!("{cert}{key}")).unwrap();
        }),
    ];
    for (case, damage) in cases {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::select(None, true, false, dir.path()).unwrap();
        let running = Authority::new("cluster.local", TtlPolicy::default()).unwrap();
        source.start(&running, now()).unwrap();
        let root = sign(&running)[1].clone();
        damage(&dir.path().join("ca"));
        assert!(source.reload(&running, now()).is_err(), "{case}");
        assert_eq!(
            dir.path().join("ca").exists(),
            case != "gone",
            "{case}: nothing created"
        );
        assert_eq!(sign(&running)[1], root, "{case}");
    }
}

#[test]
fn one_root_of_two_processes_that_change_it_wins() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path());
    root::load_or_create(&store, "cluster.local", now()).unwrap();
    let outcomes: Vec<bool> = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| root::prepare(&store, None, now()).is_ok()))
            .collect();
        tasks.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(outcomes.contains(&true));
    let signer = root::load(&store, now() + HOUR).unwrap();
    assert_eq!(
        signer.bundle().root_count(),
        2,
        "one new root, whoever made it"
    );
    root::switch(&store).unwrap();
    root::load(&store, now() + HOUR).unwrap();
}

#[test]
fn a_step_that_was_interrupted_between_two_files_is_done_again() {
    let store = MemoryStore::default();
    root::load_or_create(&store, "cluster.local", now()).unwrap();
    root::prepare(&store, None, now()).unwrap();
    let prepared = store.load().unwrap().unwrap();
    root::switch(&store).unwrap();
    let switched = store.load().unwrap().unwrap();
    let put = |root: root::StoredRoot| *store.0.lock().unwrap() = Some(root);
    let roots = || root::load(&store, now()).unwrap().bundle().root_count();

    // The next key is kept, its certificate not yet.
    let mut half = prepared.clone();
    let old_root = prepared
        .bundle_pem
        .find("-----END CERTIFICATE-----\n")
        .unwrap()
        + 26;
    half.bundle_pem.truncate(old_root);
    put(half);
    assert_eq!(roots(), 1);
    root::prepare(&store, None, now()).unwrap();
    assert_eq!(roots(), 2);
    assert!(store.load().unwrap().unwrap().next_key_pem == prepared.next_key_pem);

    // The previous key is kept, but it still signs.
    put(root::StoredRoot {
        previous_key_pem: Some(prepared.key_pem.clone()),
        ..prepared.clone()
    });
    assert!(matches!(root::finish(&store), Err(CaError::Rotation(_))));
    assert_eq!(roots(), 2, "the root that signs is not dropped");
    root::switch(&store).unwrap();
    assert!(store.load().unwrap().unwrap() == switched);

    // The next key signs already, and is not yet removed.
    put(root::StoredRoot {
        next_key_pem: prepared.next_key_pem.clone(),
        ..switched.clone()
    });
    assert!(matches!(root::switch(&store), Err(CaError::Rotation(_))));
    root::finish(&store).unwrap();
    assert_eq!(roots(), 1);
    let finished = store.load().unwrap().unwrap();
    assert!(finished.next_key_pem.is_none() && finished.previous_key_pem.is_none());
    assert!(finished.key_pem == switched.key_pem);
}
