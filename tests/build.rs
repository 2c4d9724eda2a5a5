//! Compiles `proto/*.proto` without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    #[cfg(feature = "servers")]
    {
        let descriptors = protox::compile(["proto/echo.proto", "proto/cri.proto"], ["proto"])?;
        tonic_prost_build::configure()
            .build_server(false)
            .bytes(".")
            .compile_fds(descriptors)?;
    }
    Ok(())
}
