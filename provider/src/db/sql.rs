//! Just enough reading of SQL to tell statements apart: for line numbers, for files that run statement by statement, and to
//! refuse what does not belong. What a statement means is left to the database.

use super::Dialect;

/// One statement of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement<'a> {
    /// Its text, from its first word up to the semicolon, which is left out.
    pub text: &'a str,
    /// Line of its first word, from 1.
    pub line: usize,
    /// Its leading words, in upper case.
    words: Vec<String>,
}

impl Statement<'_> {
    /// Its first word in upper case. Empty if it begins with none.
    pub fn keyword(&self) -> &str {
        self.words.first().map_or("", |word| word)
    }

    /// Whether it begins or ends a transaction by itself.
    pub fn controls_transaction(&self) -> bool {
        let second = self.words.get(1).map_or("", |word| &**word);
        match self.keyword() {
            "BEGIN" | "COMMIT" | "END" | "START" | "ABORT" => true,
            "ROLLBACK" => second != "TO" && self.words.get(2).is_none_or(|word| word != "TO"),
            "PREPARE" => second == "TRANSACTION",
            _ => false,
        }
    }

    /// Whether it waits for data from the client, which a file cannot send.
    pub fn reads_from_client(&self) -> bool {
        let upper = self.text.to_ascii_uppercase();
        self.keyword() == "COPY" && upper.split_whitespace().any(|word| word == "STDIN")
    }
}

/// How many leading words of a statement are kept.
const WORDS: usize = 4;

/// What came last, apart from blanks and comments.
#[derive(PartialEq)]
enum Last {
    Nothing,
    Semicolon,
    Opening,
    Other,
}

struct Reader<'a> {
    sql: &'a str,
    at: usize,
    dialect: Dialect,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.sql[self.at..]
    }

    /// Moves behind the next `end`, or to the end of the text.
    fn skip_past(&mut self, from: usize, end: &str) {
        let start = (self.at + from).min(self.sql.len());
        self.at = self.sql[start..].find(end).map_or(self.sql.len(), |i| start + i + end.len());
    }

    /// Moves behind a quoted text, in which the quote is written twice to stand for itself.
    fn skip_quoted(&mut self, quote: u8, backslash: bool) {
        let bytes = self.sql.as_bytes();
        self.at += 1;
        while self.at < bytes.len() {
            let byte = bytes[self.at];
            self.at += 1;
            if backslash && byte == b'\\' {
                self.at = (self.at + 1).min(bytes.len());
            } else if byte == quote {
                if bytes.get(self.at) != Some(&quote) {
                    return;
                }
                self.at += 1;
            }
        }
        // A backslash may have stepped into a character of several bytes.
        while !self.sql.is_char_boundary(self.at) {
            self.at += 1;
        }
    }

    fn skip_comment(&mut self) {
        let bytes = self.sql.as_bytes();
        if self.dialect == Dialect::Sqlite {
            return self.skip_past(2, "*/");
        }
        // PostgreSQL's comments nest.
        let mut depth = 0_usize;
        while self.at < bytes.len() {
            if bytes[self.at..].starts_with(b"/*") {
                depth += 1;
                self.at += 2;
            } else if bytes[self.at..].starts_with(b"*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return;
                }
            } else {
                self.at += 1;
            }
        }
    }

    /// The tag of a dollar-quoted text that begins here, such as `$body$`.
    fn dollar_tag(&self) -> Option<&'a str> {
        let rest = self.rest();
        let end = rest[1..].find('$')? + 1;
        let name = &rest[1..end];
        let fits = name.chars().all(|c| c.is_alphanumeric() || c == '_')
            && !name.starts_with(|c: char| c.is_ascii_digit());
        fits.then(|| &rest[..=end])
    }

    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }
}

/// Whether the words open a body in which semicolons do not end the statement.
fn opens_body(words: &[String], word: &str, dialect: Dialect) -> bool {
    match dialect {
        Dialect::Sqlite => {
            word == "BEGIN"
                && words.first().is_some_and(|w| w == "CREATE")
                && words.iter().skip(1).take(2).any(|w| w == "TRIGGER")
        }
        // `BEGIN ATOMIC` of functions written in SQL.
        Dialect::Postgres => word == "ATOMIC" && words.first().is_some_and(|w| w == "CREATE"),
    }
}

/// The statements of `sql`. What is only blank or comment is left out.
pub fn statements(sql: &str, dialect: Dialect) -> Vec<Statement<'_>> {
    let mut reader = Reader { sql, at: 0, dialect };
    let mut found = Vec::new();
    let (mut start, mut words, mut parens) = (None, Vec::new(), 0_usize);
    let (mut in_body, mut last) = (false, Last::Nothing);
    while let Some(c) = reader.rest().chars().next() {
        let rest = reader.rest();
        if c.is_whitespace() || c == '\u{feff}' {
            reader.at += c.len_utf8();
            continue;
        }
        if rest.starts_with("--") {
            reader.skip_past(2, "\n");
            continue;
        }
        if rest.starts_with("/*") {
            reader.skip_comment();
            continue;
        }
        if c == ';' {
            if parens == 0 && !in_body {
                if let Some(start) = start.take() {
                    let text = sql[start..reader.at].trim_end();
                    found.push(Statement {
                        text,
                        line: line_at(sql, start),
                        words: std::mem::take(&mut words),
                    });
                }
                last = Last::Nothing;
            } else {
                last = Last::Semicolon;
            }
            reader.at += 1;
            continue;
        }
        start.get_or_insert(reader.at);
        let mut now = Last::Other;
        match c {
            '\'' => reader.skip_quoted(b'\'', false),
            '"' => reader.skip_quoted(b'"', false),
            '`' if dialect == Dialect::Sqlite => reader.skip_quoted(b'`', false),
            '[' if dialect == Dialect::Sqlite => reader.skip_past(1, "]"),
            '$' if dialect == Dialect::Postgres => match reader.dollar_tag() {
                Some(tag) => reader.skip_past(tag.len(), tag),
                None => reader.at += 1,
            },
            '(' => {
                parens += 1;
                reader.at += 1;
            }
            ')' => {
                parens = parens.saturating_sub(1);
                reader.at += 1;
            }
            c if c.is_alphabetic() || c == '_' => {
                let word = reader.word().to_uppercase();
                if in_body && word == "END" && matches!(last, Last::Semicolon | Last::Opening) {
                    in_body = false;
                } else if !in_body && opens_body(&words, &word, dialect) {
                    (in_body, now) = (true, Last::Opening);
                } else if dialect == Dialect::Postgres && word == "E" && reader.rest().starts_with('\'') {
                    reader.skip_quoted(b'\'', true);
                }
                if words.len() < WORDS {
                    words.push(word);
                }
            }
            c => reader.at += c.len_utf8(),
        }
        last = now;
    }
    if let Some(start) = start {
        found.push(Statement { text: sql[start..].trim_end(), line: line_at(sql, start), words });
    }
    found
}

/// The line, from 1, in which the byte at `offset` stands.
pub fn line_at(sql: &str, offset: usize) -> usize {
    1 + sql.as_bytes()[..offset.min(sql.len())].iter().filter(|b| **b == b'\n').count()
}

/// An identifier in double quotes.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The beginning of a statement on one line, for people.
pub fn brief(sql: &str) -> String {
    let flat = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    match flat.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &flat[..end]),
        None => flat,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(sql: &str, dialect: Dialect) -> Vec<(usize, &str)> {
        statements(sql, dialect).into_iter().map(|s| (s.line, s.text)).collect()
    }

    #[test]
    fn semicolons_in_quotes_and_comments_do_not_end_a_statement() {
        let sql = "-- a; b\nSELECT ';', \"a;b\" /* ; */;\n\n/* x */ SELECT 2 -- ;\n;;\n";
        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
            let found = split(sql, dialect);
            assert_eq!(found.len(), 2, "{found:?}");
            assert_eq!((found[0].0, found[1].0), (2, 4));
            assert!(found[1].1.starts_with("SELECT 2"), "{found:?}");
        }
    }

    #[test]
    fn a_trigger_is_one_statement() {
        let sql = "CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN\n  UPDATE a SET b = CASE WHEN 1 THEN 2 END;\n  DELETE FROM c;\nEND;\nSELECT 1;";
        let found = split(sql, Dialect::Sqlite);
        assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), [1, 5]);
    }

    #[test]
    fn postgres_bodies_escapes_and_nested_comments_are_read_as_postgres_does() {
        let sql = "CREATE FUNCTION f() RETURNS int AS $b$ BEGIN; RETURN 1; END; $b$ LANGUAGE plpgsql;\n\
                   SELECT E'it\\'s; ', U&'x;', $1, $$;$$;\n/* a /* ; */ ; */ SELECT 3;\n\
                   CREATE FUNCTION g() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;\n\
                   CREATE RULE r AS ON DELETE TO a DO (SELECT 1; SELECT 2);";
        assert_eq!(split(sql, Dialect::Postgres).iter().map(|f| f.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn unfinished_quotes_end_with_the_text() {
        for sql in ["SELECT 'a", "SELECT $x$ a", "/* a", "SELECT E'\\", "SELECT \"ü", "SELECT E'\\ü"] {
            for dialect in [Dialect::Sqlite, Dialect::Postgres] {
                assert!(split(sql, dialect).len() <= 1, "{sql}");
            }
        }
    }

    #[test]
    fn transaction_control_is_recognized_and_savepoints_are_not_it() {
        for (sql, is) in [
            ("begin;", true),
            ("START TRANSACTION", true),
            ("COMMIT", true),
            ("rollback to savepoint a", false),
            ("ROLLBACK TRANSACTION TO a", false),
            ("rollback", true),
            ("SAVEPOINT a", false),
            ("DO $$ BEGIN END $$", false),
        ] {
            let found = statements(sql, Dialect::Postgres);
            assert_eq!(found[0].controls_transaction(), is, "{sql}");
        }
    }
}
