//! Scenario files: what a rehearsal starts from.

use std::path::{Path, PathBuf};

use contraflow_runtime::{
    error::{RunError, codes},
    rehearsal::InitialStateFile,
    script::convert::reword_text,
};

use crate::{args::rehearsal::Rehearse, command::Refused, render::Sources};

/// A scenario file that was read, or that there is none.
#[derive(Debug, Default)]
pub(crate) struct Scenario {
    /// What it says.
    pub(crate) initial_state: InitialStateFile,
    /// Its path as it is shown.
    pub(crate) path: Option<String>,
    text: String,
}

/// The file that is taken where none is named: `NAME.scenario.toml` next to `NAME.rhai`.
fn beside(runbook: &Path) -> PathBuf {
    runbook.with_extension("scenario.toml")
}

impl Scenario {
    /// Reads the file that is named, or that stands next to the runbook.
    pub(crate) fn find(args: &Rehearse) -> Result<Self, Refused> {
        let path = match &args.scenario {
            Some(path) => path.clone(),
            None => match beside(&args.script.file) {
                path if path.is_file() => path,
                _ => return Ok(Self::default()),
            },
        };
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(&path).map_err(|e| {
            let error = RunError::new(codes::ARGUMENT, format!("cannot read the scenario file {shown}: {e}"));
            Refused::input(vec![error], Sources::new())
        })?;
        let text = contraflow_runtime::text::unmarked(text);
        match parse(&shown, &text) {
            Ok(initial_state) => Ok(Self { initial_state, path: Some(shown), text }),
            Err(error) => Err(Refused::input(vec![error], Sources::from([(shown, text)]))),
        }
    }

    /// Points an error about the scenario, if it is one, to its place in the file.
    pub(crate) fn place(&self, error: RunError, sources: &mut Sources) -> RunError {
        let answer = error.detail.as_ref().and_then(|detail| detail["answer"].as_u64());
        let (Some(path), Some(Ok(n))) = (&self.path, answer.map(usize::try_from)) else { return error };
        let header = |line: &str| line.trim_start().starts_with("[[answers]]");
        let line = self.text.lines().enumerate().filter(|(_, line)| header(line)).nth(n);
        sources.insert(path.clone(), self.text.clone());
        let line = line.map_or(0, |(at, _)| at + 1);
        error.at("", path.clone(), line, 0)
    }
}

/// Reads the text of a scenario file.
///
/// # Errors
/// What is wrong with it, where, and what was probably meant.
fn parse(shown: &str, text: &str) -> Result<InitialStateFile, RunError> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let before = text.get(..at).unwrap_or_default();
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        let (message, close) = reword_text(error.message());
        let placed = RunError::new(codes::ARGUMENT, format!("the scenario file is not valid: {message}")).at(
            "",
            shown,
            before.matches('\n').count() + 1,
            column,
        );
        match close {
            Some(close) => placed.hint(format!("did you mean `{close}`?")),
            None => placed,
        }
    })
}

#[cfg(test)]
mod tests {
    use contraflow_runtime::{Beginning, Bundle};

    use super::*;

    #[test]
    fn the_scenario_of_a_runbook_stands_next_to_it() {
        assert_eq!(
            beside(Path::new("runbooks/blue-green.rhai")),
            Path::new("runbooks/blue-green.scenario.toml")
        );
    }

    #[test]
    fn the_scenarios_of_the_guide_can_be_used() {
        let guide = include_str!("../../docs/src/guide/rehearsal.md");
        let mut seen = 0;
        for block in guide.split("```toml,scenario\n").skip(1) {
            let text = block.split("```").next().expect("a block");
            let beginning = Beginning { file: parse("guide", text).expect("a scenario"), look: false };
            let bundle = Bundle::single(
                "a.rhai",
                "const RUNBOOK = #{ name: \"a\", params: #{ hold: #{ type: \"duration\" } } };",
            );
            let runtime = contraflow_runtime::Runtime::builder().build();
            if let Err(errors) = runtime.rehearsal(&bundle, &Default::default(), &beginning) {
                panic!("{errors}");
            }
            seen += 1;
        }
        assert_eq!(seen, 1);
    }

    #[test]
    fn what_is_wrong_with_a_scenario_is_told_with_its_place() {
        let told = |text: &str| {
            let error = parse("s.toml", text).expect_err(text);
            let frame = &error.frames[0];
            format!("{}:{}: {} {:?}", frame.line, frame.column, error.message, error.hints)
        };
        assert_eq!(
            told("[states]\n\n[param]\nx = 1\n"),
            "3:2: the scenario file is not valid: unknown field `param`, expected one of `states`, \
             `answers`, `params` [\"did you mean `params`?\"]"
        );
        assert!(told("[[answers]]\neffect = \"a.b\"\nvalu = 1\n").ends_with("[\"did you mean `value`?\"]"));
        assert!(told("[[answers]]\nvalue = 1\n").contains("missing field `effect`"));
        assert!(told("[states\n").starts_with("1:"));
    }
}
