//! `derny config check`

use std::path::Path;

use serde::Serialize;

use super::{
    failure::Failure,
    output::{self, Output},
};
use crate::config::{self, Checked, Error, Problem};

/// What a check has found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    good: bool,
    /// All faults, in words.
    errors: Vec<String>,
    /// The same in parts, when the file could be read as far as that.
    problems: Vec<Problem>,
    /// What is allowed and may surprise.
    notes: Vec<String>,
    pods: usize,
    services: usize,
}

/// Prints what is wrong; a finding when anything is.
pub(super) fn run(file: &Path, output: Output) -> Result<(), Failure> {
    let report = match config::load(file) {
        Ok(checked) => Report::good(&checked),
        Err(error) => Report::bad(error),
    };
    output::print(output, &report, |report| text(report, file))?;
    if report.good {
        Ok(())
    } else {
        Err(Failure::Finding)
    }
}

impl Report {
    fn good(checked: &Checked) -> Self {
        let note = |(address, services): (_, Vec<crate::model::ServiceName>)| {
            let names: Vec<String> = services.iter().map(ToString::to_string).collect();
            let first = names.first().cloned().unwrap_or_default();
            format!(
                "{address} is an endpoint of {}: dialled directly, it is {first}'s",
                names.join(" and ")
            )
        };
        Self {
            good: true,
            errors: Vec::new(),
            problems: Vec::new(),
            notes: checked.shared_endpoints().into_iter().map(note).collect(),
            pods: checked.pods.len(),
            services: checked.services.len(),
        }
    }

    fn bad(error: Error) -> Self {
        let errors = error.problems();
        let problems = match error {
            Error::Faults(problems) => problems,
            _ => Vec::new(),
        };
        Self {
            good: false,
            errors,
            problems,
            notes: Vec::new(),
            pods: 0,
            services: 0,
        }
    }
}

fn text(report: &Report, file: &Path) -> String {
    let file = file.display();
    let mut lines = report.errors.clone();
    lines.extend(report.notes.iter().map(|note| format!("note: {note}")));
    lines.push(match report.errors.len() {
        0 => format!(
            "{file} is good (pods: {}, services: {})",
            report.pods, report.services
        ),
        1 => format!("{file} is not good: 1 fault"),
        n => format!("{file} is not good: {n} faults"),
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(yaml: &str) -> Report {
        match config::from_yaml(yaml.as_bytes()) {
            Ok(checked) => Report::good(&checked),
            Err(error) => Report::bad(error),
        }
    }

    #[test]
    fn counts_faults_and_notes_what_may_surprise() {
        fn check(yaml: &str, expect: &str) {
            assert_eq!(text(&report(yaml), Path::new("f")), expect);
        }
        check("pods: [{name: a, netns: /n}]", "f is good (pods: 1, services: 0)");
        check(
            "pods: 1",
            "pods: invalid type: integer `1`, expected a sequence\nf is not good: 1 fault",
        );
        check(
            "services:\n- {name: b, ports: [{port: 1, endpoints: [{address: '10.0.0.1:1'}]}]}\n- {name: a, ports: \
             [{port: 1, endpoints: [{address: '10.0.0.1:1'}]}]}",
            "note: 10.0.0.1:1 is an endpoint of default/a and default/b: dialled directly, it is default/a's\nf is \
             good (pods: 0, services: 2)",
        );
    }

    #[test]
    fn programs_get_the_parts() {
        let json = serde_json::to_value(report("pods: [{name: A, netns: n}]")).unwrap();
        assert_eq!(json["good"], false);
        assert_eq!(json["problems"][0]["path"], "pods[0].name");
        assert_eq!(json["problems"][1]["value"], "n");
    }
}
