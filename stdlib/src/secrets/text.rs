//! `secrets::text` puts secrets into a longer text.

use std::collections::{BTreeMap, BTreeSet};

use contraflow_runtime::{
    error::{RunError, codes, did_you_mean},
    quantity::Size,
    script::{Gives, ScriptContext},
    secret::{SecretText, Text},
};
use rhai::{Map, plugin::*};

/// Fills `{name}` in a template. `{{` and `}}` stand for the braces themselves.
///
/// # Errors
/// A brace that is not closed, a name without a value, a value without a place.
pub fn fill(template: &str, values: &BTreeMap<String, Text>) -> Result<SecretText, String> {
    let mut pieces: Vec<Text> = Vec::new();
    let mut unused: BTreeSet<&str> = values.keys().map(String::as_str).collect();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        let (literal, brace) = rest.split_at(at);
        pieces.push(literal.into());
        if let Some(after) = brace.strip_prefix("{{").or_else(|| brace.strip_prefix("}}")) {
            pieces.push(brace[..1].into());
            rest = after;
            continue;
        }
        let (name, after) =
            brace.strip_prefix('{').and_then(|inside| inside.split_once('}')).ok_or_else(|| {
                format!("unmatched brace in \"{brace}\"; write {{{{ or }}}} for a literal brace")
            })?;
        let value = values.get(name).ok_or_else(|| {
            let close = did_you_mean(name, values.keys().map(String::as_str));
            match close {
                Some(close) => format!("no value for {{{name}}}; did you mean {{{close}}}?"),
                None => format!("no value for {{{name}}}"),
            }
        })?;
        unused.remove(name);
        pieces.push(value.clone());
        rest = after;
    }
    pieces.push(rest.into());
    match unused.first() {
        Some(name) => Err(format!("`{name}` has a value but no placeholder {{{name}}}")),
        None => Ok(SecretText::joined(pieces)),
    }
}

/// The longest text with secrets, with their names for their values. Rhai cannot count what such a text takes up, so it is bounded
/// before it is made; to hold many of them is then seen as for every other value.
const LONGEST: Size = Size(1 << 20);

/// What a text would take up.
fn size(template: &str, values: &BTreeMap<String, Text>) -> usize {
    let of = |value: &Text| match value {
        Text::Plain(text) => text.len(),
        Text::Secret(secret) => secret.size(),
    };
    let named = template.split('{').filter_map(|piece| values.get(piece.split('}').next()?));
    named.map(of).fold(template.len(), usize::saturating_add)
}

/// Script functions.
#[export_module]
pub mod script {
    /// Builds a text that contains secrets, itself a secret. `{name}` in `template` is replaced by the value of that
    /// name, a secret or plain text; `{{` and `}}` are literal braces.
    ///
    /// ```rhai
    /// let token = secrets::get("deploy-token");
    /// type_of(secrets::text("Bearer {token}", #{ token: token })) == "secret"
    /// ```
    #[rhai_fn(return_raw)]
    pub fn text(cx: NativeCallContext<'_>, template: &str, values: Map) -> Gives {
        let values: BTreeMap<String, Text> = cx.arg("values", values)?;
        if size(template, &values) as u64 > LONGEST.0 {
            let error = RunError::new(codes::LIMIT, format!("a text with secrets is longer than {LONGEST}"));
            return Err(cx.throw(error.hint("pass long texts to a command in a file, or as several values")));
        }
        fill(template, &values).map(Dynamic::from).map_err(|e| cx.bad_argument("template", &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str) -> String {
        let values = [
            ("user".to_owned(), "ops".into()),
            ("token".to_owned(), Text::Secret(SecretText::named("deploy-token"))),
        ];
        fill(template, &values.into()).map_or_else(|e| format!("error: {e}"), |text| text.to_string())
    }

    #[test]
    fn names_are_replaced_and_doubled_braces_stay() {
        assert_eq!(filled("{user}:{token}"), "ops:<secret deploy-token>");
        assert_eq!(
            filled(r#"{{"user": "{user}", "token": "{token}"}}"#),
            r#"{"user": "ops", "token": "<secret deploy-token>"}"#
        );
    }

    #[test]
    fn a_text_that_doubles_itself_is_measured_before_it_is_made() {
        let mut text = SecretText::named("deploy-token");
        let mut rounds = 0;
        loop {
            let values = BTreeMap::from([("a".to_owned(), Text::Secret(text.clone()))]);
            if size("{a}{a}", &values) as u64 > LONGEST.0 {
                break;
            }
            text = fill("{a}{a}", &values).expect("a text");
            rounds += 1;
        }
        assert!((10..20).contains(&rounds), "{rounds}");
        assert!(size("{{a}}{b}", &BTreeMap::from([("a".to_owned(), "x".into())])) < 20);
    }

    #[test]
    fn what_does_not_fit_together_is_said() {
        assert_eq!(filled("{user} {tokn}"), "error: no value for {tokn}; did you mean {token}?");
        assert_eq!(filled("{token}"), "error: `user` has a value but no placeholder {user}");
        assert!(filled("{user").starts_with("error: unmatched brace in \"{user\"; write {{ or }}"));
        assert!(filled("a } b").starts_with("error: unmatched brace in \"} b\""));
    }
}
