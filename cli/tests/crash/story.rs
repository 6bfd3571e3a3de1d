//! The runbook that dies, and its migrations.

/// More than thirty effects of all kinds on two routes, a database, a receiver of messages and the machine itself.
pub(crate) const STORY: &str = r#"
const RUNBOOK = #{
    name: "story",
    params: #{
        end: #{ type: "string", "default": "well", choices: ["well", "failure", "breach", "branch"] },
    },
};

let before = traffic::weights("web").blue;
on_rollback(|| notify::send("ops", `web is back, blue has ${before}`));

step("preflight", || {
    probe::http("web");
    step("look", || {
        let rows = db::query("main", "SELECT count(*) AS marks FROM marks");
        note(`${rows[0].marks} marks`);
        db::status("main");
    });
    exec::run(["touch", "begun"], #{ idempotent: true, undo: ["rm", "-f", "begun"] });
});

step("expand", || {
    db::migrate("main", #{ to: 1 });
    let orders = db::query("main", "SELECT count(*) AS n FROM orders")[0].n;
    on_rollback(|| exec::run(["tee", `orders-${orders}`], #{ stdin: "taken back", idempotent: true }));
    exec::run(["tee", "-a", "commands"], #{ stdin: "once\n", undo: ["rm", "-f", "commands"] });
});

let branches = parallel([
    || {
        traffic::set("web", #{ blue: 90, green: 10 });
        sleep("10ms");
        traffic::shift("web", "green", 20).green
    },
    || step("api", || {
        traffic::set("api", #{ blue: 70, green: 30 });
        notify::send("ops", "api: 30 %");
        traffic::weights("api").green
    }),
    || {
        sleep("20ms");
        db::migrate("main", #{ to: 2 });
        exec::run(["touch", "half"], #{ idempotent: true, undo: ["rm", "-f", "half"] });
        "migrated"
    },
]);
note(`after the branches: ${branches}`);

guard(#{ probe: "web", every: "20ms" }, || {
    for share in [40, 60, 80] {
        let share = share;
        step(`${share}% to green`, || {
            traffic::shift("web", "green", share);
            sleep("20ms");
            probe::http("web/green");
        });
    }
});

approve("go on?");

try {
    probe::http("web", #{ status: 418 });
} catch (error) {
    note(error.message);
}

step("contract", || {
    db::migrate("main");
    traffic::set("web", #{ green: 100 });
    traffic::shift("api", "green", 100);
});
notify::send("ops", `green has ${traffic::weights("web").green}`);

if params.end == "failure" { fail("enough"); }
if params.end == "breach" {
    guard(#{ probe: #{ http: "web", status: 418 }, every: "10ms", sustained: "60ms" }, || {
        traffic::shift("api", "green", 95);
        sleep("1m");
    });
}
if params.end == "branch" {
    parallel([
        || { traffic::shift("web", "green", 95); sleep("60ms"); fail("enough"); },
        || {
            traffic::shift("api", "green", 90);
            sleep("1m");
        },
    ]);
}
"#;

/// What the last part of it does before it is stopped, which is more or less: a guard looks when it looks, a branch fails when it
/// fails.
pub(crate) fn is_stopped_somewhere(id: &str) -> bool {
    ["11:guard/1:traffic.shift", "11:par["]
        .iter()
        .any(|part| id.trim_start_matches("rollback/").starts_with(part))
}

/// Each file leaves a mark, so that it shows how often it ran.
pub(crate) const MIGRATIONS: [(&str, &str); 6] = [
    (
        "0001_orders.up.sql",
        "CREATE TABLE orders (id int PRIMARY KEY);\nINSERT INTO marks VALUES ('orders up');\n",
    ),
    ("0001_orders.down.sql", "DROP TABLE orders;\nINSERT INTO marks VALUES ('orders down');\n"),
    (
        "0002_total.up.sql",
        "ALTER TABLE orders ADD COLUMN total int;\nINSERT INTO marks VALUES ('total up');\n",
    ),
    (
        "0002_total.down.sql",
        "ALTER TABLE orders DROP COLUMN total;\nINSERT INTO marks VALUES ('total down');\n",
    ),
    ("0003_note.up.sql", "ALTER TABLE orders ADD COLUMN note text;\nINSERT INTO marks VALUES ('note up');\n"),
    ("0003_note.down.sql", "ALTER TABLE orders DROP COLUMN note;\nINSERT INTO marks VALUES ('note down');\n"),
];
