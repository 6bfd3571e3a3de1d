//! Migration files of other tools, which hold both ways: the way back must not be run behind the way up.

use contraflow_runtime::provider::ProviderError;

use super::{Dialect, refused, sql};

/// What a line says that divides a file in two, or means something to another tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    /// A directive of a known tool: dbmate, goose, sql-migrate, Liquibase, MyBatis, Play, rambler, node-pg-migrate, tern.
    Directive,
    /// A heading that says that the way back begins.
    Back,
}

/// Refuses a file that is written for another tool.
///
/// # Errors
/// The file, the line and what it says.
pub(super) fn check(file: &str, text: &str, dialect: Dialect) -> Result<(), ProviderError> {
    let mut statements = None;
    for (number, line) in (1_usize..).zip(text.lines()) {
        let line = line.trim();
        let what = match marker(line) {
            None => continue,
            Some(Marker::Directive) => format!("\"{line}\" is a directive of another migration tool"),
            Some(Marker::Back) => {
                // Only where it stands between statements does it divide them: a file that is the way back may say so on top.
                let statements = statements.get_or_insert_with(|| sql::statements(text, dialect));
                let last = |s: &sql::Statement<'_>| s.line + s.text.lines().count().saturating_sub(1);
                let divides =
                    statements.iter().any(|s| last(s) < number) && statements.iter().any(|s| s.line > number);
                if !divides {
                    continue;
                }
                format!("\"{line}\" seems to begin the way back, and a file is run from top to bottom")
            }
        };
        return Err(refused(format!("{file} line {number}: {what}")).hint(
            "split the file: the way up into NUMBER_NAME.up.sql, the way back into NUMBER_NAME.down.sql, without such lines",
        ));
    }
    Ok(())
}

/// What a line is, if it is a comment that another tool reads.
fn marker(line: &str) -> Option<Marker> {
    let comment =
        line.strip_prefix("--").or_else(|| line.strip_prefix('#')).or_else(|| line.strip_prefix("/*"))?;
    // tern: `---- create above / drop below ----`.
    let is_filling = |c: char| c.is_whitespace() || "-=#*/!~<>:;.".contains(c);
    let text = comment.trim_end_matches("*/").trim_matches(is_filling).to_ascii_lowercase();
    let words: Vec<&str> = text.split_whitespace().collect();
    let first = words.first().copied().unwrap_or_default();
    let directive = matches!(first, "+goose" | "+migrate" | "+micrate" | "migrate:up" | "migrate:down" | "@undo")
        || (first == "changeset" && words.get(1).is_some_and(|author| author.contains(':')))
        || matches!(&*words, ["liquibase", "formatted", "sql", ..])
        || matches!(&*words, ["rambler", "up" | "down"])
        || matches!(&*words, ["up" | "down", "migration"])
        || matches!(&*words, ["create", "above", "/", "drop", "below"])
        // Play: `# --- !Ups`, `-- !Downs`; the exclamation mark is filling here.
        || (matches!(&*words, ["ups" | "downs"]) && comment.contains('!'));
    if directive {
        return Some(Marker::Directive);
    }
    let heading: Vec<&str> =
        words.iter().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric())).collect();
    let back = ["down", "downs", "undo", "rollback", "revert", "downgrade"];
    let around = ["migration", "migrate", "script", "section", "part", "begin", "start", "sql", ""];
    let is_back = heading.iter().any(|word| back.contains(word))
        && heading.iter().all(|word| back.contains(word) || around.contains(word));
    is_back.then_some(Marker::Back)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<(), String> {
        check("0001_a.sql", text, Dialect::Postgres).map_err(|e| e.message)
    }

    #[test]
    fn directives_of_other_tools_are_refused_with_their_line() {
        for directive in [
            "-- migrate:up",
            "-- migrate:up transaction:false",
            "--migrate:down",
            "-- +goose Up",
            "-- +goose StatementBegin",
            "-- +migrate Down",
            "--liquibase formatted sql",
            "-- liquibase formatted sql",
            "--changeset somebody:1",
            "-- //@UNDO",
            "-- @UNDO",
            "# --- !Downs",
            "-- !Ups",
            "-- rambler up",
            "-- Down Migration",
            "---- create above / drop below ----",
        ] {
            let error = checked(&format!("SELECT 1;\n\n  {directive}\nDROP TABLE customers;\n"))
                .expect_err(directive);
            assert_eq!(
                error,
                format!("0001_a.sql line 3: \"{directive}\" is a directive of another migration tool")
            );
        }
    }

    #[test]
    fn a_heading_that_divides_a_file_is_refused_and_one_that_does_not_is_a_comment() {
        for heading in [
            "-- down",
            "-- DOWN --",
            "/* rollback */",
            "-- === Undo section ===",
            "--- down:",
            "-- Downgrade script",
        ] {
            let text = format!("CREATE TABLE a (id int);\n{heading}\nDROP TABLE a;");
            let error = checked(&text).expect_err(heading);
            assert!(error.contains("line 2") && error.contains("run from top to bottom"), "{error}");
        }
        for text in [
            "-- down\nDROP TABLE a;",
            "CREATE TABLE a (id int);\n-- rollback: DROP TABLE a;",
            "CREATE TABLE a (id int);\n-- to undo this, drop a\nCREATE TABLE b (id int);",
            "CREATE FUNCTION f() RETURNS text AS $$\n-- down\nSELECT 'x' $$ LANGUAGE sql;",
            "-- going up\nCREATE TABLE a (id int);\n-- down the road: more\nCREATE TABLE b (id int);",
            "INSERT INTO notes VALUES ('first');\n-- changesets are listed elsewhere\nSELECT 1;",
        ] {
            assert_eq!(checked(text), Ok(()), "{text}");
        }
    }
}
