//! `contraflow store`: looks after the place in which runs are kept.

use std::{io::stdout, sync::Arc};

use contraflow_runtime::journal::{
    Run, RunStatus, Store as Runs, StoreError,
    record::{Broken, Chain},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::{
    args::{Exit, Output, Prune, Store},
    command::{Refused, print},
    context::Context,
    report::{
        table::{self, RunRow},
        theme::Theme,
    },
    session::{Place, failed},
};

pub(super) async fn execute(args: &Store, context: &Context) -> Result<Exit, Refused> {
    let place = Place::find(context)?;
    match args {
        Store::Migrate => migrate(&place, context).await,
        Store::Check => check(&place, context).await,
        Store::Prune(args) => prune(&place, args, context).await,
    }
}

async fn migrate(place: &Place, context: &Context) -> Result<Exit, Refused> {
    let created = place.look().await?.is_none();
    let store = place.open().await?.describe();
    match context.global.output {
        Output::Json => print(&format!("{}\n", json!({ "store": store, "created": created }))),
        Output::Human if created => print(&format!("ok: created {store}\n")),
        Output::Human => print(&format!("ok: {store} is up to date\n")),
    }
    Ok(Exit::Success)
}

async fn check(place: &Place, context: &Context) -> Result<Exit, Refused> {
    let (mut found, mut runs, mut records) = (Vec::new(), 0_u64, 0_u64);
    if let Some(store) = place.look().await? {
        found = store.check().await.map_err(failed)?;
        for run in store.runs(u32::MAX).await.map_err(failed)? {
            runs += 1;
            // One run that cannot be read is no reason not to look at the others.
            match verified(&*store, &run.id).await {
                Ok(Ok(n)) => records += n,
                Ok(Err(broken)) => found.push(format!("{}: record {}: {}", run.id, broken.seq, broken.why)),
                Err(error) => found.push(format!("{}: {error}", run.id)),
            }
            match store.bundle(&run.bundle).await {
                Ok(Some(bundle)) if bundle.hash() != run.bundle => {
                    found.push(format!("{}: the stored scripts differ from the ones that ran", run.id));
                }
                // Whether it is there at all was looked at before.
                Ok(_) => {}
                Err(error) => found.push(format!("{}: {error}", run.id)),
            }
        }
    }
    let (ok, shown) = (found.is_empty(), place.describe());
    match context.global.output {
        Output::Json => print(&format!(
            "{}\n",
            json!({ "store": shown, "ok": ok, "runs": runs, "records": records, "found": found })
        )),
        Output::Human if ok => {
            let (runs, records) = (counted(runs, "run"), counted(records, "record"));
            print(&format!("ok: no damage found in {shown} ({runs}, {records})\n"));
        }
        Output::Human => {
            for line in &found {
                print(&format!("damaged: {line}\n"));
            }
            print(&format!("{shown} is damaged: compare it with a backup\n"));
        }
    }
    Ok(if ok { Exit::Success } else { Exit::Failed })
}

/// Recomputes the chain of a run, page by page. Answers how many records it has.
async fn verified(store: &dyn Runs, run: &str) -> Result<Result<u64, Broken>, StoreError> {
    let mut chain = Chain::default();
    loop {
        let page = store.page(run, chain.seq).await?;
        if page.is_empty() {
            return Ok(Ok(chain.seq));
        }
        if let Err(broken) = page.iter().try_for_each(|record| chain.follow(record)) {
            return Ok(Err(broken));
        }
    }
}

async fn prune(place: &Place, args: &Prune, context: &Context) -> Result<Exit, Refused> {
    let age = SignedDuration::try_from(args.older_than.0.0).unwrap_or(SignedDuration::MAX);
    let before = Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN);
    let store = place.look().await?;
    if args.dry_run {
        let rows = match store {
            Some(store) => old(&store, before).await?,
            None => Vec::new(),
        };
        match context.global.output {
            Output::Json => print(&table::json(&rows)),
            Output::Human if rows.is_empty() => print("nothing would be removed\n"),
            Output::Human => {
                print(&table::columns(&rows, Timestamp::now(), Theme::of(&stdout())));
                print(&format!("{} would be removed\n", counted(rows.len() as u64, "run")));
            }
        }
        return Ok(Exit::Success);
    }
    let removed = match store {
        Some(store) => store.prune(before).await.map_err(failed)?,
        None => 0,
    };
    match context.global.output {
        Output::Json => print(&format!("{}\n", json!({ "store": place.describe(), "removed": removed }))),
        Output::Human => {
            print(&format!("ok: {} removed from {}\n", counted(removed, "run"), place.describe()))
        }
    }
    Ok(Exit::Success)
}

/// The runs that would be removed.
async fn old(store: &Arc<dyn Runs>, before: Timestamp) -> Result<Vec<RunRow>, Refused> {
    let is_old = |run: &Run| {
        matches!(run.status, RunStatus::Ended(_))
            && !run.status.can_go_on()
            && run.ended_at.is_some_and(|end| end < before)
    };
    let runs = store.runs(u32::MAX).await.map_err(failed)?;
    Ok(runs.into_iter().filter(is_old).map(|run| RunRow::new(run, &[])).collect())
}

fn counted(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
