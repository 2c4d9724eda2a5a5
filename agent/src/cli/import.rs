//! `derny import envoy`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use super::{
    failure::Failure,
    output::{self, Output},
};
use crate::{
    config,
    import::{self, Form, Note, NoteKind},
};

#[derive(Debug, Args)]
pub(super) struct EnvoyArgs {
    /// The bootstrap
    file: PathBuf,

    /// A file for `derny run --config`, or objects for `kubectl apply`
    #[arg(long, value_enum, default_value_t)]
    to: To,

    /// Namespace of everything whose name does not say another
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,

    /// Exit with 1 when anything has no equivalent
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum To {
    #[default]
    File,
    Kubernetes,
}

#[derive(Debug, Serialize)]
struct Report {
    documents: Vec<Value>,
    notes: Vec<Note>,
}

/// Prints the result to standard output and the notes to standard error; with JSON, both as one document.
pub(super) fn run(args: &EnvoyArgs, output: Output) -> Result<(), Failure> {
    let content = config::read(&args.file).map_err(anyhow::Error::from)?;
    let document = config::yaml(&content).with_context(|| args.file.display().to_string())?;
    let mut imported =
        import::envoy(&document, &args.namespace).with_context(|| args.file.display().to_string())?;
    let settled = imported.objects.settle();
    let left_out = settled.context("what was carried over does not pass the check")?;
    let form = match args.to {
        To::File => Form::File,
        To::Kubernetes => Form::Kubernetes,
    };
    let written = imported.objects.written(form);
    let notes = [imported.notes, left_out, written.notes].concat();
    let lost = notes.iter().any(|note| note.kind == NoteKind::NoEquivalent);
    let report = Report {
        documents: written.documents,
        notes,
    };
    match output {
        Output::Json => output::print(output, &report, |_| String::new())?,
        Output::Table => {
            for note in &report.notes {
                eprintln!("{}", line(note));
            }
            output::write(yaml(&report.documents)?.trim_end())?;
        }
    }
    if args.strict && lost {
        Err(Failure::Finding)
    } else {
        Ok(())
    }
}

/// ``path: no equivalent: reason (`value`)``
fn line(note: &Note) -> String {
    let Note {
        path,
        value,
        kind,
        said,
    } = note;
    format!("{path}: {}: {said} (`{value}`)", kind.as_str())
}

fn yaml(documents: &[Value]) -> anyhow::Result<String> {
    let texts: Result<Vec<String>, _> = documents.iter().map(serde_saphyr::to_string).collect();
    Ok(texts.context("writing YAML")?.join("---\n"))
}
