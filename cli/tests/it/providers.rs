//! `contraflow providers`: what can stand behind a target.

use crate::harness::Lab;

#[test]
fn all_nouns_are_listed_with_their_providers() {
    let list = Lab::new().contraflow(&["providers"]).succeeded().stdout;
    for name in ["traffic: ", "  haproxy ", "metrics: ", "  prometheus ", "  exec "] {
        assert!(list.contains(name), "{name}\n{list}");
    }
}

#[test]
fn a_provider_is_shown_with_a_target_as_it_can_be_pasted() {
    let lab = Lab::new();
    let page = lab.contraflow(&["providers", "haproxy"]).succeeded().stdout;
    assert!(page.contains("\nSettings:\n\n- "), "{page}");
    assert!(page.contains("    provider = \"haproxy\"\n") && !page.contains("prometheus"), "{page}");
    assert_eq!(lab.contraflow(&["providers", "traffic/haproxy"]).succeeded().stdout, page);
}

#[test]
fn programs_get_an_object_for_each_provider() {
    let providers = Lab::new().contraflow(&["providers", "traffic", "--output", "json"]).succeeded().json();
    assert!(providers.iter().all(|provider| provider["noun"] == "traffic"), "{providers:?}");
    let haproxy = providers.iter().find(|provider| provider["provider"] == "haproxy").expect("haproxy");
    assert!(haproxy["example"].as_str().is_some_and(|text| text.contains("[env.production.traffic.")));
}

#[test]
fn a_misspelt_provider_is_refused_with_the_closest_one() {
    let refused = Lab::new().contraflow(&["providers", "haprxy"]).exits_with(2);
    assert!(refused.stderr.contains("did you mean `haproxy`?"), "{}", refused.stderr);
}

#[test]
fn editors_get_a_schema_of_the_configuration_file() {
    let lab = Lab::new();
    let schema = lab.contraflow(&["providers", "--json-schema"]).succeeded().stdout;
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
    assert_eq!(schema["title"], "contraflow.toml");
    assert!(schema["properties"]["env"]["additionalProperties"]["properties"]["traffic"].is_object());
    lab.contraflow(&["providers", "haproxy", "--json-schema"]).exits_with(2);
}
