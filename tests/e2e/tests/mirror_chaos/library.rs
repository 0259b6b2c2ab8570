//! The extension's library with failpoints, at which a worker can be killed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use tailstream_devkit::extension::cargo;
use tailstream_devkit::server_user::ServerUser;
use tailstream_devkit::{postgres_install, repository};

/// Builds the library in its own directory beside the other builds, and copies it to where the server's user can read
/// it. Returns that directory.
pub fn with_failpoints() -> String {
    let root = repository::root().expect("the repository");
    let major = postgres_install::major().expect("the major version");
    let target = root.join("target/failpoints");
    let status = cargo(&root)
        .args([
            "build",
            "--quiet",
            "--lib",
            "--package",
            "tailstream",
            "--no-default-features",
            "--features",
            &format!("failpoints,pg{major}"),
            "--target-dir",
        ])
        .arg(&target)
        .status()
        .expect("cargo");
    assert!(status.success(), "the library with failpoints cannot be built");
    let clusters = repository::clusters_dir(&ServerUser::detect().expect("a user")).expect("a directory");
    let dir = clusters.join("failpoints-library");
    fs::create_dir_all(&dir).expect("a directory");
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).expect("its mode");
    // The file is replaced, not overwritten: a server that still runs keeps the old one.
    let library = dir.join("tailstream.so");
    let _ = fs::remove_file(&library);
    fs::copy(target.join("debug/libtailstream.so"), &library).expect("a copy");
    fs::set_permissions(&library, Permissions::from_mode(0o755)).expect("its mode");
    dir.to_str().expect("a path").to_owned()
}
