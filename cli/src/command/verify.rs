//! `contraflow verify`: whether the record of a run is as it was written.

use contraflow_runtime::{
    error::{RunError, codes},
    journal::record::verify,
};

use crate::{
    args::{Exit, Output, Verify},
    command::{Refused, print},
    context::Context,
    session::{Place, failed, find_run},
};

pub(super) async fn execute(args: &Verify, context: &Context) -> Result<Exit, Refused> {
    let (store, run) = find_run(&Place::find(context)?, &args.run).await?;
    let fail = |message: String| {
        Refused::failed(
            RunError::new(codes::JOURNAL, message).hint("the store was altered: compare it with a backup"),
        )
    };
    let records = store.records(&run.id).await.map_err(failed)?;
    let head = verify(&records).map_err(|broken| {
        let message = format!("{}: record {}: {}", run.id, broken.seq, broken.why);
        Refused::failed(RunError::new(codes::JOURNAL, message).hint(broken.hint))
    })?;
    let bundle = store.bundle(&run.bundle).await.map_err(failed)?;
    match bundle {
        Some(bundle) if bundle.hash() == run.bundle => {}
        Some(_) => return Err(fail(format!("{}: the stored scripts differ from the ones that ran", run.id))),
        None => return Err(fail(format!("{}: its scripts are missing", run.id))),
    }
    let head: String = head.iter().map(|byte| format!("{byte:02x}")).collect();
    match context.global.output {
        Output::Json => print(&format!(
            "{}\n",
            serde_json::json!({ "run": run.id, "ok": true, "records": records.len(), "head": head, "bundle": run.bundle })
        )),
        Output::Human => print(&format!(
            "ok: {} has {} records, unaltered (head {}), and the scripts it ran (bundle {})\n",
            run.id,
            records.len(),
            &head[..12],
            &run.bundle[..12.min(run.bundle.len())]
        )),
    }
    Ok(Exit::Success)
}
