//! What was carried over, as a file of ours or as objects of Kubernetes.

use super::{Objects, kubernetes, objects::Written};

/// How the result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One document: the file of `derny run --config`.
    File,
    /// One document for each object: Services, EndpointSlices, HTTPRoutes, TrafficPolicies.
    Kubernetes,
}

impl Objects {
    /// All of it in this form.
    pub fn written(&self, form: Form) -> Written {
        match form {
            Form::File => Written {
                documents: vec![self.file()],
                notes: self.short_names(),
            },
            Form::Kubernetes => kubernetes::written(self),
        }
    }
}
