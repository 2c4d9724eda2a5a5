use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::containerd::Containerd;
use crate::{
    image::{Image, Platform},
    netns::run,
};

/// Of the first process of a sandbox.
pub(super) const PAUSE: &str = "localhost/pause:1";
/// Of applications: see `programs` for what they see besides.
pub(super) const APPLICATION: &str = "localhost/application:1";

/// Compiles pause, packs it as both images, and brings them in.
pub(super) fn import(containerd: &Containerd, directory: &Path) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/containers/pause.c");
    let program = directory.join("pause");
    let (source, output) = (source.display().to_string(), program.display().to_string());
    run("cc", &["-static", "-Os", "-o", &output, &source], None)?;
    let binary = fs::read(&program).context("reading pause")?;
    for name in [PAUSE, APPLICATION] {
        let image = Image {
            name,
            program: "pause",
            description: "A process that does nothing",
            version: "1",
            revision: None,
            platform: Platform::of(std::env::consts::ARCH)?,
            binary: &binary,
        };
        let archive = directory.join("image.tar");
        fs::write(&archive, image.pack()?.archive).context("writing an image")?;
        let archive = archive.display().to_string();
        // The namespace of the CRI.
        let import = [
            "-n",
            "k8s.io",
            "images",
            "import",
            "--snapshotter",
            "native",
            &archive,
        ];
        containerd.ctr(&import)?;
    }
    Ok(())
}
