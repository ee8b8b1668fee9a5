use super::check;

const EC: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
const OFF_CURVE: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEA","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;

#[test]
fn a_set_needs_a_key_that_is_certainly_read() {
    for (keys, good) in [
        (EC.to_owned(), true),
        (format!(r#"{{"kty":"XX"}},{EC}"#), true),
        (format!(r#"{EC},"x",{{}}"#), true),
        (OFF_CURVE.to_owned(), false),
        (String::new(), false),
        (r#"{"kty":"RSA","e":"AQAB"}"#.to_owned(), false),
        (r#"{"kty":"oct","k":"AAAA","alg":"HS256"}"#.to_owned(), true),
        (EC.replace(r#""kty""#, r#""alg":"ES384","kty""#), false),
        (EC.replace(r#""kty""#, r#""alg":5,"kty""#), false),
    ] {
        let set = format!(r#"{{"keys":[{keys}]}}"#);
        assert_eq!(check(&set).is_ok(), good, "{set}");
    }
}

#[test]
fn what_is_no_set_is_told() {
    for (text, why) in [
        ("hello", "it is not valid JSON"),
        ("[]", "it has no keys"),
        ("{}", "it has no keys"),
        (r#"{"keys":{}}"#, "keys is no list"),
        (r#"{"keys":[],"keys":[]}"#, "it is not valid JSON"),
        (r#"{"keys":[]}"#, "it has no key of a kind that can be used"),
    ] {
        assert_eq!(check(text), Err(why), "{text}");
    }
}
