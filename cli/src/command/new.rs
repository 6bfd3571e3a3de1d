//! `contraflow new`: a runbook to begin with.

use crate::{
    args::{Exit, New, Output},
    command::{Refused, print},
    context::Context,
    scaffold,
};

pub(super) fn execute(args: &New, context: &Context) -> Result<Exit, Refused> {
    let written = scaffold::create(&args.path, args.template, args.with_config).map_err(Refused::failed)?;
    let paths: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
    match context.global.output {
        Output::Json => print(&format!("{}\n", serde_json::json!({ "written": paths }))),
        Output::Human => {
            let script = paths.first().map_or("", String::as_str);
            print(&format!(
                "wrote {0}\n\nNext:\n  {1} plan {script}\n  {1} run {script}\n",
                paths.join(" and "),
                context.program.name
            ));
        }
    }
    Ok(Exit::Success)
}
