//! Each lint finds its defect and is silent about what only looks like it.

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        path::{Path, PathBuf},
        sync::LazyLock,
    };

    use contraflow_runtime::{Bundle, Runtime, lint::Warning};

    /// All checks share what scripts can call.
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Runtime::builder().library(&contraflow_stdlib::library()).build());

    /// What is found in a bundle that checks: code and line of each.
    fn found(bundle: &Bundle) -> Vec<String> {
        if let Err(errors) = RUNTIME.check(bundle) {
            panic!("{errors}\n{}", bundle.main_text());
        }
        let line = |warning: &Warning| {
            let at = &warning.frames[0];
            let file = if at.source == bundle.main { String::new() } else { format!(" of {}", at.source) };
            format!("{} in line {}{file}", warning.code, at.line)
        };
        RUNTIME.warnings(bundle).iter().map(line).collect()
    }

    /// A runbook with a few parameters, whose body begins in line 1.
    fn script(body: &str) -> Bundle {
        const PARAMS: &str = "#{ to: #{ type: \"string\", \"default\": \"green\" }, \
                              yes: #{ type: \"bool\", \"default\": true }, n: #{ type: \"int\", \"default\": 3 } }";
        Bundle::single("a.rhai", format!("const RUNBOOK = #{{ name: \"a\", params: {PARAMS} }}; {body}"))
    }

    /// That `code` is found in line 1 of each of these, and nothing else, and nothing in those that only look like it.
    fn tells_apart(code: &str, defects: &[&str], near_misses: &[&str]) {
        let mut wrong = Vec::new();
        for body in defects {
            let found = found(&script(body));
            if found != [format!("{code} in line 1")] {
                wrong.push(format!("{body}\n  found {found:?}"));
            }
        }
        for body in near_misses {
            let found = found(&script(body));
            if !found.is_empty() {
                wrong.push(format!("{body}\n  found {found:?}, and it is right"));
            }
        }
        assert!(wrong.is_empty(), "{code}\n{}", wrong.join("\n"));
    }

    #[test]
    fn a_write_after_the_point_of_no_return_wants_a_guard() {
        tells_apart(
            "unguarded-write",
            &[
                r#"point_of_no_return("x"); traffic::shift("web", "green", 100);"#,
                r#"step("a", || { point_of_no_return("x"); step("b", || db::migrate("main")); });"#,
                r#"step("a", || point_of_no_return("x")); exec::run(["purge"]);"#,
                r#"fn gone() { point_of_no_return("x"); } gone(); traffic::shift("web", params.to, 100);"#,
                r#"fn drop_it(db) { db::migrate(db); } point_of_no_return("x"); drop_it("main");"#,
                r#"if params.yes { point_of_no_return("x"); } else { point_of_no_return("y"); } db::migrate("main");"#,
                r#"if params.yes { fail("no"); } else { point_of_no_return("x"); } db::migrate("main");"#,
                r#"guard(#{ metric: "web.error_rate", above: "1%" }, || { point_of_no_return("x"); }); db::migrate("main");"#,
                r#"point_of_no_return("x"); http::request("POST", "web", #{ path: "/purge" });"#,
                r#"point_of_no_return("x"); parallel([|| db::migrate("main"), || sleep("1s")]);"#,
                r#"point_of_no_return("x"); for n in [1, 2] { db::migrate("main"); }"#,
                r#"let body = || db::migrate("main"); point_of_no_return("x"); step("b", body);"#,
                r#"point_of_no_return("x"); let migrate = || db::migrate("main"); migrate.call();"#,
                r#"point_of_no_return("x"); try { db::migrate("main"); } catch (e) { throw e; }"#,
            ],
            &[
                r#"traffic::shift("web", "green", 100); point_of_no_return("x");"#,
                r#"point_of_no_return("x"); guard(#{ metric: "web.error_rate", above: "1%" }, || traffic::shift("web", "green", 100));"#,
                r#"guard(#{ metric: "web.error_rate", above: "1%" }, || { point_of_no_return("x"); step("a", || db::migrate("main")); });"#,
                r#"point_of_no_return("x"); notify::send("ops", "done"); note("done"); log("done"); sleep("1s");"#,
                r#"point_of_no_return("x"); probe::http("web"); metrics::hold("web", #{ error_rate: "< 1%" }, "1m"); db::status("main");"#,
                r#"point_of_no_return("x"); http::request("POST", "web", #{ path: "/search", read_only: true });"#,
                r#"let options = #{}; if params.yes { options.read_only = true; } point_of_no_return("x"); exec::run(["look"], options);"#,
                // What repairs is not to be stopped.
                r#"point_of_no_return("x"); on_rollback(|| traffic::shift("web", "blue", 100));"#,
                r#"point_of_no_return("x"); try { probe::http("web"); } catch (e) { traffic::shift("web", "blue", 100); throw e; }"#,
                // It is not passed for sure.
                r#"if params.yes { point_of_no_return("x"); } db::migrate("main");"#,
                r#"if params.yes { point_of_no_return("x"); fail("no"); } db::migrate("main");"#,
                r#"for n in 0..params.n { point_of_no_return("x"); } db::migrate("main");"#,
                // A closure that is called somewhere may be called inside a guard.
                r#"point_of_no_return("x"); let jobs = []; jobs.push(|| db::migrate("main")); guard(#{ metric: "web.error_rate", above: "1%" }, || parallel(jobs));"#,
                r#"fn watched(body) { guard(#{ metric: "web.error_rate", above: "1%" }, || body.call()); } point_of_no_return("x"); watched(|| db::migrate("main"));"#,
            ],
        );
    }

    #[test]
    fn a_pool_is_retired_on_evidence() {
        tells_apart(
            "retire-without-evidence",
            &[
                r#"deploy::scale("web/blue", 0);"#,
                r#"const POOL = "web/blue"; step("retire", || deploy::scale(POOL, 0));"#,
                r#"let service = "web"; deploy::scale(`${service}/blue`, 0);"#,
                r#"let service = "web"; step("retire", || deploy::scale(service + "/blue", 0, #{ settle: "1m" }));"#,
                r#"fn retire(pool) { deploy::scale("web/" + pool, 0); } retire("blue");"#,
                r#"traffic::shift("web", "green", 95); deploy::scale("web/blue", 0);"#,
                r#"for weight in [5, 50] { traffic::shift("web", "green", weight); } deploy::scale("web/blue", 0);"#,
                r#"traffic::shift("web", "green", 95); approve("retire blue?"); deploy::scale("web/blue", 0);"#,
                r#"traffic::set("web", #{ blue: 10, green: 90 }); deploy::scale("web/blue", 0);"#,
                r#"traffic::shift("web", "green", 100); traffic::shift("web", "blue", 10); deploy::scale("web/blue", 0);"#,
                r#"traffic::shift("web", "green", 100); deploy::scale("web/green", 0);"#,
                r#"metrics::hold("web", #{ error_rate: "< 1%", p95: "< 500ms" }, "5m"); deploy::scale("web/blue", 0);"#,
                r#"note(`weights: ${traffic::weights("web")}`); deploy::scale("web/blue", 0);"#,
                r#"sleep("5m"); probe::http("web/green"); deploy::scale("web/blue", 0);"#,
                r#"deploy::scale("web/blue", 0); traffic::shift("web", "green", 100);"#,
                r#"traffic::shift("shop", "green", 50); deploy::scale("web/blue", 0);"#,
                r#"deploy::scale("web/canary", 1); traffic::shift("web", "canary", 5); deploy::scale("web/canary", 0);"#,
                r#"deploy::scale("web/green", 5); traffic::shift("web", "green", 100); on_rollback(|| deploy::scale("web/green", 0));"#,
                r#"if params.yes { fail("no"); traffic::shift("web", "green", 100); } deploy::scale("web/blue", 0);"#,
                r#"deploy::scale(`${params.to}/blue`, 0);"#,
                r#"let service = params.to; traffic::shift(service, "green", 95); deploy::scale(service + "/blue", 0);"#,
            ],
            &[
                // Only a run knows whether these are the same.
                r#"traffic::shift("web", params.to, 95); deploy::scale("web/blue", 0);"#,
                r#"traffic::shift(params.to, "green", 95); deploy::scale("web/blue", 0);"#,
                r#"traffic::shift("web", "green", 95); deploy::scale(`web/${params.to}`, 0);"#,
                r#"traffic::shift(params.to, "green", 100); deploy::scale(`${params.to}/blue`, 0);"#,
                r#"traffic::set(params.to, #{ blue: 0, green: 100 }); deploy::scale(`${params.to}/blue`, 0);"#,
                r#"traffic::shift("web", "green", 100); deploy::scale("web/blue", 0);"#,
                r#"traffic::shift("web", "green", "100%"); deploy::scale("web/blue", 0);"#,
                r#"traffic::shift("web", "blue", 0); deploy::scale("web/blue", 0);"#,
                r#"traffic::set("web", #{ green: 100 }); deploy::scale("web/blue", 0);"#,
                r#"traffic::set("web", #{ blue: 0, green: 100 }); deploy::scale("web/blue", 0);"#,
                r#"for weight in [5, 50, 100] { step(`${weight}%`, || traffic::shift("web", "green", 100)); } deploy::scale("web/blue", 0);"#,
                r#"for weight in [5, 50, 100] { let weight = weight; step(`${weight}%`, || traffic::shift("web", "green", weight)); } deploy::scale("web/blue", 0);"#,
                r#"for weight in 0..101 { traffic::shift("web", "green", weight); } deploy::scale("web/blue", 0);"#,
                r#"traffic::shift("web", params.to, 50); deploy::scale("web/blue", 0);"#,
                r#"traffic::shift("web", "green", params.n); deploy::scale("web/blue", 0);"#,
                r#"if traffic::weights("web").blue > 0 { fail("still there"); } deploy::scale("web/blue", 0);"#,
                r#"let now = traffic::weights("web"); if now.blue == 0 { deploy::scale("web/blue", 0); }"#,
                r#"metrics::hold("web", #{ requests: "< 1" }, "5m"); deploy::scale("web/blue", 0);"#,
                r#"if metrics::query("web", "open_connections").value > 0.0 { fail("still there"); } deploy::scale("web/blue", 0);"#,
                r#"exec::run(["drain", "blue"]); deploy::scale("web/blue", 0);"#,
                r#"manual("look whether blue still has connections"); deploy::scale("web/blue", 0);"#,
                r#"approve("retire blue?"); deploy::scale("web/blue", 0);"#,
                r#"traffic::shift("web", "green", 100); traffic::shift("web", "canary", 10); deploy::scale("web/blue", 0);"#,
                r#"if params.yes { traffic::shift("web", "green", 100); } deploy::scale("web/blue", 0);"#,
                r#"deploy::scale("web/canary", 1); probe::http("web/canary"); deploy::scale("web/canary", 0);"#,
                r#"deploy::scale("web/blue", 1); deploy::scale("web/" + params.to, 0); deploy::scale("web/blue", params.n);"#,
                // On the way back the weights are as they were.
                r#"deploy::scale("web/green", 5); on_rollback(|| deploy::scale("web/green", 0)); traffic::shift("web", "green", 100);"#,
                r#"try { traffic::shift("web", "green", 50); } catch (e) { traffic::shift("web", "blue", 100); deploy::scale("web/green", 0); throw e; }"#,
                r#"["blue", "green"].for_each(|pool| deploy::scale("web/" + pool, 0));"#,
            ],
        );
    }

    #[test]
    fn a_rollback_goes_where_there_is_capacity() {
        tells_apart(
            "rollback-without-capacity",
            &[
                r#"traffic::shift("web", "green", 100); deploy::scale("web/blue", 0); on_rollback(|| traffic::shift("web", "blue", 100));"#,
                r#"traffic::shift("web", "green", 100); deploy::scale("web/blue", 0); on_rollback(|| { note("back"); traffic::set("web", #{ blue: 100 }); });"#,
                r#"traffic::shift("web", "green", 100); deploy::scale("web/blue", 0); step("a", || on_rollback(|| traffic::shift("web", "blue", params.n)));"#,
                r#"try { traffic::shift("web", "green", 100); deploy::scale("web/blue", 0); metrics::hold("web", #{ error_rate: "< 1%" }, "5m"); } catch (e) { traffic::shift("web", "blue", 100); throw e; }"#,
                r#"fn back() { traffic::shift("web", "blue", 100); } traffic::shift("web", "green", 100); deploy::scale("web/blue", 0); on_rollback(|| back());"#,
                r#"traffic::shift("web", "green", 100); deploy::scale("web/blue", 3); deploy::scale("web/blue", 0); on_rollback(|| traffic::shift("web", "blue", 100));"#,
                r#"traffic::shift("web", "green", 100); deploy::scale("web/blue", 0); on_rollback(|| { traffic::shift("web", "blue", 100); deploy::scale("web/blue", 3); });"#,
                r#"let s = params.to; traffic::shift(s, "green", 100); deploy::scale(`${s}/blue`, 0); on_rollback(|| traffic::shift(s, "blue", 100));"#,
            ],
            &[
                r#"traffic::shift("web", "green", 100); deploy::scale("web/blue", 0); on_rollback(|| traffic::shift("web", params.to, 100));"#,
                r#"let s = params.to; traffic::shift(s, "green", 100); deploy::scale(`${s}/blue`, 0); on_rollback(|| { deploy::scale(`${s}/blue`, 3); traffic::shift(s, "blue", 100); });"#,
                // It is called after the pool has its replicas again.
                r#"on_rollback(|| traffic::shift("web", "blue", 100)); traffic::shift("web", "green", 100); deploy::scale("web/blue", 0);"#,
                r#"traffic::shift("web", "green", 100); deploy::scale("web/blue", 0); on_rollback(|| { deploy::scale("web/blue", 3); traffic::shift("web", "blue", 100); });"#,
                r#"traffic::shift("web", "green", 100); deploy::scale("web/blue", 0); deploy::scale("web/blue", 3); on_rollback(|| traffic::shift("web", "blue", 100));"#,
                r#"traffic::shift("web", "green", 100); deploy::scale("web/blue", 0); on_rollback(|| { probe::http("web/blue"); traffic::shift("web", "blue", 100); });"#,
                r#"traffic::shift("web", "green", 100); deploy::scale("web/blue", 0); on_rollback(|| { if deploy::replicas("web/blue").ready > 0 { traffic::shift("web", "blue", 100); } });"#,
                r#"traffic::shift("web", "green", 100); deploy::scale("web/blue", 0); on_rollback(|| traffic::shift("web", "blue", 0));"#,
                r#"traffic::shift("web", "green", 100); deploy::scale("web/blue", 0); on_rollback(|| traffic::shift("web", "green", 100));"#,
                r#"traffic::shift("web", "green", 100); deploy::scale("web/blue", 0); on_rollback(|| traffic::shift("web", params.to, 100));"#,
                r#"traffic::shift("web", "green", 100); deploy::scale("web/blue", 0); on_rollback(|| traffic::shift("shop", "blue", 100));"#,
                r#"traffic::shift("web", "green", 100); if params.yes { deploy::scale("web/blue", 0); } on_rollback(|| traffic::shift("web", "blue", 100));"#,
                r#"traffic::shift("web", "green", 100); deploy::scale("web/blue", params.n); on_rollback(|| traffic::shift("web", "blue", 100));"#,
                r#"try { traffic::shift("web", "green", 100); probe::http("web"); deploy::scale("web/blue", 0); } catch (e) { traffic::shift("web", "blue", 100); throw e; }"#,
            ],
        );
    }

    #[test]
    fn a_health_loop_can_fail_and_gives_up() {
        tells_apart(
            "health-loop-cannot-fail",
            &[
                r#"for n in 0..10 { try { probe::http("web/green"); break; } catch (e) { sleep("5s"); } } traffic::shift("web", "green", 100);"#,
                r#"for n in 0..10 { try { probe::http("web/green"); break; } catch { } } traffic::shift("web", "green", 100);"#,
                r#"step("wait", || { for n in 0..10 { try { probe::http("web/green"); break; } catch (e) { note(e.message); sleep("5s"); } } }); traffic::shift("web", "green", 100);"#,
                r#"let n = 0; while n < 10 { n += 1; try { probe::http("web/green"); break; } catch { sleep("5s"); } } traffic::shift("web", "green", 100);"#,
                r#"fn wait(pool) { for n in 0..10 { try { probe::http("web/" + pool); return; } catch { sleep("5s"); } } } wait("green"); traffic::shift("web", "green", 100);"#,
                r#"for n in 0..10 { try { let answer = http::get("web/green"); if answer.status != 200 { throw "not yet"; } break; } catch { sleep("5s"); } } traffic::shift("web", "green", 100);"#,
                r#"for n in 0..30 { if deploy::replicas("web/green").ready >= 3 { break; } sleep("10s"); } traffic::shift("web", "green", 100);"#,
                r#"for n in 0..10 { try { metrics::hold("web", #{ error_rate: "< 1%" }, "1m"); break; } catch { continue; } } notify::send("ops", "well");"#,
                r#"for weight in [25, 100] { traffic::shift("web", "green", weight); try { metrics::hold("web", #{ error_rate: "< 1%" }, "5m"); } catch (e) { note(e.message); } }"#,
                // Never gives up.
                r#"loop { try { probe::http("web/green"); break; } catch { sleep("5s"); } } traffic::shift("web", "green", 100);"#,
                r#"while true { if deploy::replicas("web/green").ready >= 3 { break; } sleep("10s"); }"#,
                r#"step("wait", || { loop { try { probe::http("web/green"); break; } catch { sleep("5s"); } } });"#,
            ],
            &[
                r#"probe::http("web/green", #{ attempts: 10, interval: "5s" }); traffic::shift("web", "green", 100);"#,
                r#"let well = false; for n in 0..10 { try { probe::http("web/green"); well = true; break; } catch { sleep("5s"); } } if !well { fail("green is not well"); } traffic::shift("web", "green", 100);"#,
                r#"let errors = []; for n in 0..10 { try { probe::http("web/green"); break; } catch (e) { errors.push(e.message); } } if errors.len() == 10 { fail("no"); }"#,
                r#"let n = 0; while n < 10 { n += 1; try { probe::http("web/green"); break; } catch { sleep("5s"); } } if n == 10 { fail("no"); }"#,
                r#"for n in 0..10 { try { probe::http("web/green"); break; } catch (e) { if n == 9 { throw e; } sleep("5s"); } }"#,
                r#"for n in 0..10 { if n == 9 { fail("not well"); } try { probe::http("web/green"); break; } catch { sleep("5s"); } }"#,
                r#"for n in 0..10 { try { probe::http("web/green"); break; } catch { sleep("5s"); } } probe::http("web/green"); traffic::shift("web", "green", 100);"#,
                r#"for n in 0..10 { try { probe::http("web/green"); break; } catch { sleep("5s"); } } approve("is green well?"); traffic::shift("web", "green", 100);"#,
                r#"fn wait() { for n in 0..10 { try { probe::http("web/green"); return; } catch { sleep("5s"); } } fail("not well"); } wait();"#,
                r#"fn is_well() { for n in 0..10 { try { probe::http("web/green"); return true; } catch { sleep("5s"); } } false } if !is_well() { fail("no"); }"#,
                r#"let well = false; while !well { try { probe::http("web/green"); well = true; } catch { sleep("5s"); } }"#,
                r#"while deploy::replicas("web/green").ready < 3 { sleep("10s"); }"#,
                r#"for n in 0..10 { probe::http("web/green"); sleep("5s"); }"#,
                r#"for n in 0..10 { try { probe::http("web/green"); break; } catch { traffic::shift("web", "blue", 100); break; } }"#,
                r#"for n in 0..10 { try { probe::http("web/green"); break; } catch { exec::run(["restart", "green"]); } } traffic::shift("web", "green", 100);"#,
                r#"for n in 0..30 { if deploy::replicas("web/green").ready >= 3 { break; } sleep("10s"); } if deploy::replicas("web/green").ready < 3 { fail("no"); }"#,
                // A look at all pools that only notes what it finds.
                r#"for pool in ["blue", "green"] { try { probe::http("web/" + pool); } catch (e) { note(`${pool}: ${e.message}`); } }"#,
                // Pages of rows.
                r#"for page in 0..10 { let rows = db::query("main", `select * from t limit 10 offset ${page * 10}`); if rows.is_empty() { break; } note(`${rows}`); }"#,
                // Something else ends it.
                r#"step("wait", #{ timeout: "5m" }, || { loop { try { probe::http("web/green"); break; } catch { sleep("5s"); } } });"#,
                r#"guard(#{ metric: "web.error_rate", above: "1%" }, || { loop { try { probe::http("web/green"); break; } catch { sleep("5s"); } } });"#,
                r#"let n = 0; loop { n += 1; if n > 10 { fail("no"); } try { probe::http("web/green"); break; } catch { sleep("5s"); } }"#,
                r#"let well = loop { try { probe::http("web/green"); break true; } catch { break false; } }; if !well { fail("no"); }"#,
                r#"for n in 0..3 { try { notify::send("ops", "hello"); break; } catch { sleep("5s"); } } traffic::shift("web", "green", 100);"#,
            ],
        );
    }

    #[test]
    fn a_deadline_of_the_run_ends_a_loop_that_does_not() {
        let body = r#"loop { try { probe::http("web/green"); break; } catch { sleep("5s"); } }"#;
        let bundle = |deadline: &str| {
            Bundle::single("a.rhai", format!("const RUNBOOK = #{{ name: \"a\"{deadline} }};\n{body}"))
        };
        assert_eq!(found(&bundle("")), ["health-loop-cannot-fail in line 2"]);
        assert_eq!(found(&bundle(", deadline: \"1h\"")), Vec::<String>::new());
    }

    #[test]
    fn what_an_imported_function_does_is_found_where_it_stands_and_how_it_is_called_is_told() {
        let mut bundle = Bundle::single(
            "a.rhai",
            "const RUNBOOK = #{ name: \"a\" };\nimport \"lib/pools\" as pools;\npools::retire(\"web\", \"blue\");\n\
             pools::retire(\"web\", \"green\");\n",
        );
        let lib = "fn retire(service, pool) {\n    deploy::scale(`${service}/${pool}`, 0);\n}\n";
        bundle.files.insert("lib/pools.rhai".to_owned(), lib.to_owned());
        assert_eq!(found(&bundle), ["retire-without-evidence in line 2 of lib/pools.rhai"]);
        let way = RUNTIME.warnings(&bundle).remove(0).frames;
        assert_eq!(
            (&*way[1].what, &*way[1].source, way[1].line, way[1].column),
            ("pools::retire", "a.rhai", 3, 1)
        );
    }

    #[test]
    fn a_comment_silences_one_warning_and_says_why() {
        let with = |comment: &str| {
            Bundle::single(
                "a.rhai",
                format!("const RUNBOOK = #{{ name: \"a\" }};\n{comment}\ndeploy::scale(\"web/blue\", 0);\n"),
            )
        };
        let retire = "retire-without-evidence in line 3";
        for (comment, expected) in [
            ("", &[retire][..]),
            ("// contraflow: allow(retire-without-evidence) because it takes no traffic", &[]),
            ("    //contraflow:allow( retire-without-evidence ): it takes no traffic", &[]),
            ("// contraflow: allow(retire-without-evidence)", &["allow in line 2", retire]),
            ("// contraflow: allow(retire-without-evidence) because", &["allow in line 2", retire]),
            ("// contraflow: allow(retire-without-evidense) because of this", &["allow in line 2", retire]),
            ("// contraflow: allow(unguarded-write) because of this", &["allow in line 2", retire]),
            (
                "// contraflow: allow(retire-without-evidence, unguarded-write) because of this",
                &["allow in line 2"],
            ),
            ("// allow(retire-without-evidence) because of this", &[retire]),
        ] {
            assert_eq!(found(&with(comment)), expected, "{comment}");
        }
        let behind = |reason: &str| {
            let call = "note(\"http://x\"); deploy::scale(\"web/blue\", 0);";
            let allow = format!("// contraflow: allow(retire-without-evidence) {reason}");
            Bundle::single("a.rhai", format!("const RUNBOOK = #{{ name: \"a\" }};\n{call} {allow}\n"))
        };
        assert_eq!(found(&behind("because it takes no traffic")), Vec::<String>::new());
        assert_eq!(found(&behind("")), ["retire-without-evidence in line 2", "allow in line 2"]);
        let two = "// contraflow: allow(retire-without-evidence) because it takes no traffic\n\n// A word about it.";
        assert_eq!(found(&with(two)), Vec::<String>::new(), "comments and empty lines may stand in between");
        let before =
            "// contraflow: allow(retire-without-evidence) because it takes no traffic\nnote(\"x\");";
        assert_eq!(found(&with(before)), ["allow in line 2", "retire-without-evidence in line 4"]);
        let wrong = RUNTIME
            .warnings(&with("// contraflow: allow(retire-without-evidense) because of this"))
            .remove(0);
        assert_eq!(wrong.help, ["did you mean `retire-without-evidence`?"]);
    }

    #[test]
    fn what_an_imported_script_allows_may_be_needed_elsewhere() {
        let mut bundle = Bundle::single(
            "a.rhai",
            "const RUNBOOK = #{ name: \"a\" };\nimport \"lib\" as lib;\ntraffic::shift(\"web\", \"green\", 100);\nlib::retire();\n",
        );
        let allow = "// contraflow: allow(retire-without-evidence) because of this";
        let lib = format!("fn retire() {{\n    {allow}\n    deploy::scale(\"web/blue\", 0);\n}}\n");
        bundle.files.insert("lib.rhai".to_owned(), lib);
        assert_eq!(found(&bundle), Vec::<String>::new());
    }

    fn root(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
    }

    fn runbooks(folder: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(root(folder)).expect("the folder");
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.retain(|file| file.extension().is_some_and(|ending| ending == "rhai"));
        files.sort();
        files
    }

    #[test]
    fn the_runbooks_that_ship_have_no_warnings() {
        let files = runbooks("runbooks");
        assert!(files.len() >= 2, "{files:?}");
        for file in files {
            assert_eq!(
                found(&Bundle::load(&file).expect("a runbook")),
                Vec::<String>::new(),
                "{}",
                file.display()
            );
        }
    }

    #[test]
    fn runbooks_with_a_defect_have_the_warnings_that_their_heads_declare_and_no_others() {
        let mut seen = BTreeSet::new();
        for file in runbooks("tests/rehearsal/bad") {
            let text = fs::read_to_string(&file).expect("a runbook");
            let declared: Vec<&str> =
                text.lines().filter_map(|line| line.strip_prefix("//! warns: ")).collect();
            let found = found(&Bundle::load(&file).expect("a runbook"));
            let codes: Vec<&str> = found.iter().filter_map(|line| line.split(' ').next()).collect();
            assert_eq!(codes, declared, "{}", file.display());
            seen.extend(found.iter().filter_map(|line| line.split(' ').next()).map(str::to_owned));
        }
        assert_eq!(seen.len(), 4, "{seen:?}");
    }

    #[test]
    fn the_book_shows_what_each_warning_finds_and_what_it_is_silent_about() {
        let page = fs::read_to_string(root("docs/src/guide/check.md")).expect("the page");
        let mut codes: Vec<&str> = vec!["unguarded-write", "health-loop-cannot-fail", "allow"];
        let library = contraflow_stdlib::library();
        codes.extend(library.lints().iter().map(|lint| lint.name()));
        for code in codes {
            let (_, section) = page.split_once(&format!("\n## {code}\n")).expect("a heading");
            let section = section.split("\n## ").next().expect("its text");
            let scripts =
                section.split("```rhai,no_run\n").skip(1).filter_map(|rest| rest.split("```").next());
            for (i, script) in scripts.enumerate() {
                let found = found(&Bundle::single("a.rhai", script));
                let found: Vec<&str> = found.iter().filter_map(|line| line.split(' ').next()).collect();
                assert_eq!(found, [code].into_iter().filter(|_| i == 0).collect::<Vec<_>>(), "{script}");
            }
        }
    }

    #[test]
    fn a_script_that_calls_itself_without_end_is_looked_at_in_a_moment() {
        let script = "const RUNBOOK = #{ name: \"a\" };\n\
                      fn a(n) { step(\"x\", || { if n > 0 { a(n - 1); b(n); } }) }\n\
                      fn b(n) { a(n); a(n); }\n\
                      a(3);\ndeploy::scale(\"web/blue\", 0);\n";
        // What could not be followed may have been evidence.
        assert_eq!(found(&Bundle::single("a.rhai", script)), Vec::<String>::new());
    }
}
