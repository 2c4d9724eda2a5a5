//! This room's parsers for `crate::fuzz`.

use super::{
    objects,
    services::Declared,
    slices::{Place, Slices, Zones},
};

/// An object as the API server sends it, of whatever kind it can be read as.
pub(crate) fn objects(bytes: &[u8]) {
    if let Ok(slice) = serde_json::from_slice::<objects::EndpointSlice>(bytes) {
        let (mut slices, mut zones) = (Slices::default(), Zones::default());
        slices.set(&slice, &mut zones);
        for zone in [None, Some("a")] {
            slices.endpoints(None, Place { zone, node: zone });
            slices.endpoints(Some("http"), Place { zone, node: zone });
        }
        // What is saved for the next agent reads as the same.
        for saved in slices.to_objects("demo") {
            assert!(!slices.set(&saved, &mut zones), "{saved:?}");
        }
    }
    if let Ok(service) = serde_json::from_slice::<objects::Service>(bytes)
        && let Some(declared) = Declared::from_object(&service)
    {
        declared.kind.left_alone();
        let again = Declared::from_object(&declared.to_object());
        assert!(again.is_some(), "{declared:?}");
    }
    super::pods::fuzz_object(bytes);
}
