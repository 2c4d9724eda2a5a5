//! A container image with one program, as an OCI image layout in one tar file
//! (<https://github.com/opencontainers/image-spec/blob/main/image-layout.md>), byte for byte the same for the same
//! input: no times, no owners, one order.

use std::io::Write as _;

use anyhow::{Context, Result, bail};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The image is what its binary is, and has no age of its own.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// What a program runs on, in the image specification's words (Go's).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Platform {
    pub architecture: &'static str,
}

impl Platform {
    /// Of a compiler's target.
    pub fn of(target: &str) -> Result<Self> {
        let architecture = match target.split('-').next() {
            Some("x86_64") => "amd64",
            Some("aarch64") => "arm64",
            _ => bail!("no image is made for {target}: use x86_64 or aarch64"),
        };
        Ok(Self { architecture })
    }
}

/// One program in the root directory, and nothing else.
pub struct Image<'a> {
    /// Registry, repository and tag.
    pub name: &'a str,
    /// The program's file.
    pub program: &'a str,
    pub description: &'a str,
    pub version: &'a str,
    pub revision: Option<String>,
    pub platform: Platform,
    pub binary: &'a [u8],
}

/// A finished archive.
pub struct Packed {
    pub archive: Vec<u8>,
    /// Of the manifest: what a registry calls the image by.
    pub digest: String,
}

struct Blob {
    media_type: &'static str,
    bytes: Vec<u8>,
}

impl Blob {
    fn json(media_type: &'static str, value: &Value) -> Result<Self> {
        let bytes = serde_json::to_vec(value)?;
        Ok(Self { media_type, bytes })
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": digest(&self.bytes), "size": self.bytes.len()})
    }
}

impl Image<'_> {
    pub fn pack(&self) -> Result<Packed> {
        let layer = tar(&[(self.program, 0o755, self.binary)])?;
        let config = self.config(&digest(&layer))?;
        let layer = Blob {
            media_type: LAYER,
            bytes: gzip(&layer)?,
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
            "annotations": self.labels(),
        });
        let manifest = Blob::json(MANIFEST, &manifest)?;
        let mut described = manifest.descriptor();
        described["platform"] = json!({"architecture": self.platform.architecture, "os": "linux"});
        described["annotations"] = json!({
            // containerd reads the first, others the second, which is a tag alone.
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": self.version,
        });
        let index = json!({"schemaVersion": 2, "manifests": [described]});

        let blobs = [&config, &layer, &manifest];
        let mut files: Vec<(String, &[u8])> = blobs
            .map(|blob| {
                let name = digest(&blob.bytes).replacen(':', "/", 1);
                (format!("blobs/{name}"), blob.bytes.as_slice())
            })
            .into();
        let index = serde_json::to_vec(&index)?;
        files.push(("index.json".to_owned(), &index));
        files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#));
        files.sort();
        let entries: Vec<_> = files
            .iter()
            .map(|(path, bytes)| (path.as_str(), 0o644, *bytes))
            .collect();
        Ok(Packed {
            archive: tar(&entries)?,
            digest: digest(&manifest.bytes),
        })
    }

    /// `layer` is the digest of the layer before it is compressed.
    fn config(&self, layer: &str) -> Result<Blob> {
        let config = json!({
            "created": CREATED,
            "architecture": self.platform.architecture,
            "os": "linux",
            "config": {
                // The pods' namespaces and the admin socket are root's; capabilities are for the manifest to give.
                "User": "0:0",
                "Entrypoint": [format!("/{}", self.program)],
                "WorkingDir": "/",
                "Labels": self.labels(),
            },
            "rootfs": {"type": "layers", "diff_ids": [layer]},
            "history": [{"created": CREATED, "created_by": "cargo xtask image"}],
        });
        Blob::json(CONFIG, &config)
    }

    /// <https://github.com/opencontainers/image-spec/blob/main/annotations.md>
    fn labels(&self) -> Value {
        let mut labels = json!({
            "org.opencontainers.image.title": self.program,
            "org.opencontainers.image.description": self.description,
            "org.opencontainers.image.version": self.version,
            "org.opencontainers.image.licenses": "Apache-2.0",
        });
        if let Some(revision) = &self.revision {
            labels["org.opencontainers.image.revision"] = json!(revision);
        }
        labels
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// Files of root's, from 1970, in the order given.
fn tar(files: &[(&str, u32, &[u8])]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(u64::try_from(bytes.len())?);
        header.set_mode(*mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, path, *bytes)
            .with_context(|| format!("packing {path}"))?;
    }
    Ok(tar.into_inner()?)
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    gzip.write_all(bytes)?;
    Ok(gzip.finish()?)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read as _};

    use super::*;

    fn image(binary: &[u8]) -> Image<'_> {
        Image {
            name: "localhost/derny:1",
            program: "derny",
            description: "a mesh",
            version: "1",
            revision: None,
            platform: Platform::of("aarch64-unknown-linux-gnu").unwrap(),
            binary,
        }
    }

    fn files(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        for entry in tar::Archive::new(tar).entries().unwrap() {
            let mut entry = entry.unwrap();
            assert_eq!(
                (entry.header().mtime().unwrap(), entry.header().uid().unwrap()),
                (0, 0)
            );
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            found.insert(entry.path().unwrap().to_string_lossy().into_owned(), bytes);
        }
        found
    }

    /// The blob that a descriptor names, which must be what it says.
    fn blob(files: &BTreeMap<String, Vec<u8>>, descriptor: &Value) -> Vec<u8> {
        let named = descriptor["digest"].as_str().unwrap();
        let bytes = files[&format!("blobs/{}", named.replacen(':', "/", 1))].clone();
        assert_eq!(digest(&bytes), named);
        assert_eq!(descriptor["size"], bytes.len());
        bytes
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        let (one, two) = (
            image(b"program").pack().unwrap(),
            image(b"program").pack().unwrap(),
        );
        assert_eq!((&one.digest, &one.archive), (&two.digest, &two.archive));
        assert_ne!(one.digest, image(b"another").pack().unwrap().digest);
    }

    #[test]
    fn what_the_index_leads_to_is_there_and_whole() {
        let packed = image(b"program").pack().unwrap();
        let files = files(&packed.archive);
        assert_eq!(files["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let described = &index["manifests"][0];
        assert_eq!(described["digest"], packed.digest);
        assert_eq!(
            described["platform"],
            json!({"architecture": "arm64", "os": "linux"})
        );
        let manifest: Value = serde_json::from_slice(&blob(&files, described)).unwrap();
        let config: Value = serde_json::from_slice(&blob(&files, &manifest["config"])).unwrap();
        assert_eq!(config["config"]["Entrypoint"], json!(["/derny"]));
        let layer = blob(&files, &manifest["layers"][0]);
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(layer.as_slice())
            .read_to_end(&mut unpacked)
            .unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&unpacked));
        assert_eq!(
            self::files(&unpacked),
            BTreeMap::from([("derny".to_owned(), b"program".to_vec())])
        );
        assert_eq!(files.len(), 5);
    }

    #[test]
    fn images_are_for_known_machines() {
        assert_eq!(
            Platform::of("x86_64-unknown-linux-musl").unwrap().architecture,
            "amd64"
        );
        Platform::of("riscv64gc-unknown-linux-gnu").unwrap_err();
    }
}
