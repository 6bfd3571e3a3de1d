//! `contraflow targets`: what is bound, and whether it can be reached.

use std::{io::stdout, time::Duration};

use jiff::Timestamp;

use crate::{
    args::{Exit, Output, Targets},
    command::{Refused, print},
    context::Context,
    report::{
        table::{self, Check, TargetRow},
        theme::Theme,
    },
    session::Session,
};

/// Longest wait for one target's answer.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) async fn execute(args: &Targets, context: &Context) -> Result<Exit, Refused> {
    let session = Session::open(context, args.env.as_deref(), &[])?;
    let runtime = session.runtime().build();
    // All at the same time: one that does not answer must not hold up the others.
    let asked: Vec<_> = runtime
        .providers()
        .bindings()
        .iter()
        .map(|binding| {
            let provider = std::sync::Arc::clone(&binding.provider);
            args.check
                .then(|| tokio::spawn(async move { tokio::time::timeout(PATIENCE, provider.check()).await }))
        })
        .collect();
    let mut rows = Vec::new();
    for (binding, asked) in runtime.providers().bindings().iter().zip(asked) {
        let check = match asked {
            None => None,
            Some(answer) => Some(match answer.await {
                Ok(Ok(Ok(text))) => Check { ok: true, text },
                Ok(Ok(Err(error))) => Check { ok: false, text: error.message },
                Ok(Err(_)) => Check { ok: false, text: format!("no answer within {}s", PATIENCE.as_secs()) },
                Err(_) => Check { ok: false, text: "the check ended without an answer".to_owned() },
            }),
        };
        rows.push(TargetRow {
            target: format!("{}/{}", binding.noun, binding.name),
            provider: binding.provider.kind().to_owned(),
            at: binding.provider.describe(),
            check,
        });
    }
    let failed = rows.iter().any(|row| row.check.as_ref().is_some_and(|check| !check.ok));
    match context.global.output {
        Output::Json => print(&table::json(&rows)),
        Output::Human if rows.is_empty() => {
            print(&format!("no targets are bound in environment \"{}\"\n", session.environment()));
        }
        Output::Human => print(&table::columns(&rows, Timestamp::now(), Theme::of(&stdout()))),
    }
    Ok(if failed { Exit::Failed } else { Exit::Success })
}
