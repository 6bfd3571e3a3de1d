//! `cutover check`: everything that can be found wrong without running.

use cutover_runtime::{Bundle, Runtime};

use crate::{
    args::{Check, Exit, Global, Output},
    command::{complain, print},
    render::Sources,
};

pub(super) fn execute(args: &Check, global: &Global) -> Exit {
    let runtime =
        Runtime::builder().modules(cutover_stdlib::modules()).global(cutover_stdlib::words()).build();
    let mut exit = Exit::Success;
    for file in &args.files {
        let (bundle, errors) = match Bundle::load(file) {
            Ok(bundle) => {
                let errors = runtime.check(&bundle).map_or_else(|errors| errors.0, |header| {
                    let shown = file.display();
                    match global.output {
                        Output::Human => print(&format!("ok: {shown} ({} {})\n", header.name, header.version)),
                        Output::Json => print(&format!(
                            "{}\n",
                            serde_json::json!({ "file": shown.to_string(), "ok": true, "runbook": header })
                        )),
                    }
                    Vec::new()
                });
                (Some(bundle), errors)
            }
            Err(error) => (None, vec![error]),
        };
        if !errors.is_empty() {
            let mut sources = bundle.map_or_else(Sources::new, |bundle| bundle.files);
            if sources.is_empty()
                && let (Some(name), Ok(text)) = (file.file_name(), std::fs::read_to_string(file))
            {
                sources.insert(name.to_string_lossy().into_owned(), text);
            }
            exit = complain(&errors, &sources, global, Exit::Usage);
        }
    }
    exit
}
