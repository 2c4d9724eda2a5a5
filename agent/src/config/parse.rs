//! YAML → schema.

use super::{Error, schema::File};

/// Sequences, maps and scalars of one file: some 400,000 rules of a route.
const MAX_NODES: usize = 10_000_000;

/// Reads one YAML document. What is wrong with its types is reported by the path of the field.
///
/// YAML goes through a JSON value, so that file and custom resource are read by the same code and say the same
/// about the same mistake.
pub(super) fn parse(content: &[u8]) -> Result<File, Error> {
    file(yaml(content)?)
}

/// Reads one YAML document, of which JSON is a part, as a JSON value.
pub(super) fn yaml(content: &[u8]) -> Result<serde_json::Value, Error> {
    // The file is the operator's own and may be as large as the node serves; what a short text can make grow
    // (aliases, depth) keeps its bounds.
    let budget = serde_saphyr::budget! { max_nodes: MAX_NODES, max_events: 2 * MAX_NODES };
    // `no`, `on` and `y` are names and not truth values, as in YAML 1.2.
    let options = serde_saphyr::options! { strict_booleans: true, budget: budget };
    serde_saphyr::from_slice_with_options(content, options)
        .map_err(|error| Error::Yaml(error.without_snippet().to_string()))
}

/// Reads a whole file from its JSON value.
pub(super) fn file(value: serde_json::Value) -> Result<File, Error> {
    // A file that is being written is empty for a moment; that must not pass for "nothing is in the mesh".
    if !value.is_object() {
        let message =
            "expected the sections pods, services, policies and routes: write `pods: []` to serve none";
        return Err(Error::Shape {
            path: "the file".to_owned(),
            message: message.to_owned(),
        });
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = match error.path().to_string() {
            root if root == "." => "the file".to_owned(),
            path => path,
        };
        Error::Shape {
            path,
            message: error.into_inner().to_string(),
        }
    })
}
