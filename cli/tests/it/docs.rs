//! `contraflow docs`: what functions do, from the same source as the reference.

use crate::harness::Lab;

#[test]
fn a_function_has_a_page_with_its_calls_and_an_example_as_it_can_be_pasted() {
    let page = Lab::new().contraflow(&["docs", "traffic::shift"]).succeeded().stdout;
    assert!(page.contains("\n    traffic::shift(") && !page.contains("```"), "{page}");
}

#[test]
fn a_module_has_all_its_functions_and_the_list_has_all_modules() {
    let lab = Lab::new();
    let module = lab.contraflow(&["docs", "traffic"]).succeeded().stdout;
    assert!(module.contains("traffic::set") && module.contains("traffic::shift"), "{module}");
    let list = lab.contraflow(&["docs"]).succeeded().stdout;
    for name in ["control-words\n", "  approve ", "traffic\n", "  traffic::shift ", "  metrics::hold "] {
        assert!(list.contains(name), "{name}\n{list}");
    }
}

#[test]
fn programs_get_an_object_for_each_function() {
    let functions = Lab::new().contraflow(&["docs", "notify", "--output", "json"]).succeeded().json();
    assert_eq!(functions[0]["function"], "notify::send");
    let call = functions[0]["calls"][0].as_str().expect("a call");
    assert!(call.starts_with("notify::send("), "{call}");
}

#[test]
fn an_error_code_has_its_page() {
    let page = Lab::new().contraflow(&["docs", "gate-failed"]).succeeded().stdout;
    assert!(page.contains("gate-failed") && page.contains("\nWhat to do\n"), "{page}");
}

#[test]
fn a_misspelt_name_is_refused_with_the_closest_one() {
    let lab = Lab::new();
    for name in ["traffic::shfit", "shift"] {
        let refused = lab.contraflow(&["docs", name]).exits_with(2);
        assert!(refused.stderr.contains("did you mean `traffic::shift`?"), "{}", refused.stderr);
    }
}
