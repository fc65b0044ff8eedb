//! Compiles `covey.proto` with a protobuf compiler written in Rust, so that nobody needs `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=covey.proto");
    let files = protox::compile(["covey.proto"], ["."])?;
    prost_build::Config::new().compile_fds(files)?;
    Ok(())
}
