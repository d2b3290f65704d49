//! What users install: a tarball with the program, its manual, completions, units and bill of
//! materials, and the folder that the container image is built from.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::gate::{Outcome, cargo};
use crate::process::{Tally, stream};
use crate::tools;
use crate::tree;

/// Exposure by systemd's own measure, 0 to 100; a unit without hardening has 96.
const EXPOSURE_MAX: &str = "20";
const SHELLS: [(&str, &str); 3] =
    [("bash", "cloakroom.bash"), ("zsh", "_cloakroom"), ("fish", "cloakroom.fish")];
const TEXTS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];
/// The certificates of public authorities, as Debian keeps them.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Builds everything, optimised, into `target/dist`.
pub fn make() -> io::Result<bool> {
    let auditable = tools::cargo_tool("cargo-auditable", "0.7.7")?;
    let mut build = Command::new(auditable);
    build.args(["auditable", "build", "--release", "-p", "cloakroom-server", "--bin", "cloakroom"]);
    if !stream(build.current_dir(tree::root()))?.success {
        return Ok(false);
    }
    let program = built()?.join("release/cloakroom");
    let dist = tree::root().join("target/dist");
    let name = format!("cloakroom-{}-{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let folder = dist.join(&name);
    fill(&program, &folder)?;
    bill_of_materials(&folder)?;
    image_folder(&program, &dist)?;
    let tarball = dist.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "-czf"]).arg(&tarball);
    let packed = stream(tar.arg("-C").arg(&dist).arg(&name))?.success;
    println!("{}\n{}", tarball.display(), dist.join("image").display());
    Ok(packed)
}

/// Checks what is packed, with the program as it was built for the tests.
pub fn step() -> io::Result<Outcome> {
    if !stream(&mut cargo(&["build", "-p", "cloakroom-server", "--bin", "cloakroom"]))?.success {
        return Ok(Outcome::Counted(Tally::FAILED));
    }
    let scratch = tree::root().join("target/dist-check");
    let program = built()?.join("debug/cloakroom");
    fill(&program, &scratch.join("folder"))?;
    image_folder(&program, &scratch)?;
    let checks = [unit_is_hardened(&scratch.join("folder"))?, image_works(&scratch.join("image"))?];
    fs::remove_dir_all(&scratch)?;
    Ok(Outcome::Counted(checks.into_iter().sum()))
}

/// The build directory, wherever it is: this program was built into it.
fn built() -> io::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let folder = here.parent().and_then(Path::parent);
    Ok(folder.ok_or_else(|| io::Error::other("no build directory"))?.to_owned())
}

/// The program and what belongs beside it.
fn fill(program: &Path, folder: &Path) -> io::Result<()> {
    fresh(folder)?;
    fs::create_dir_all(folder.join("completions"))?;
    fs::copy(program, folder.join("cloakroom"))?;
    checked(Command::new(program).arg("man").arg("--dir").arg(folder.join("man")))?;
    for (shell, file) in SHELLS {
        let printed = Command::new(program).args(["completions", shell]).output()?;
        fs::write(folder.join("completions").join(file), printed.stdout)?;
    }
    let commented = folder.join("cloakroom.toml");
    checked(Command::new(program).args(["config", "init", "--config"]).arg(commented))?;
    for text in TEXTS {
        fs::copy(tree::root().join(text), folder.join(text))?;
    }
    copy_folder(&tree::root().join("packaging/systemd"), &folder.join("systemd"))
}

/// The bill of materials (CycloneDX) of the program.
fn bill_of_materials(folder: &Path) -> io::Result<()> {
    let cyclonedx = tools::cargo_tool("cargo-cyclonedx", "0.5.9")?;
    let manifest = tree::root().join("crates/server/Cargo.toml");
    let mut list = Command::new(cyclonedx);
    list.args(["cyclonedx", "--format", "json", "--override-filename", "sbom", "--manifest-path"]);
    checked(list.arg(&manifest))?;
    // It writes one beside each manifest of the workspace.
    for entry in fs::read_dir(tree::root().join("crates"))? {
        let written = entry?.path().join("sbom.json");
        if written.parent().is_some_and(|of| of.ends_with("server")) {
            fs::copy(&written, folder.join("sbom.cdx.json"))?;
        }
        if written.is_file() {
            fs::remove_file(written)?;
        }
    }
    Ok(())
}

/// What the container image is built from: the program with the libraries it is linked with.
fn image_folder(program: &Path, into: &Path) -> io::Result<()> {
    let image = into.join("image");
    let rootfs = image.join("rootfs");
    fresh(&image)?;
    fs::create_dir_all(image.join("data"))?;
    fs::write(image.join("data/.keep"), "")?;
    fs::copy(tree::root().join("packaging/Containerfile"), image.join("Containerfile"))?;
    place(program, &rootfs.join("usr/bin/cloakroom"))?;
    for library in libraries(program)? {
        let at = library.strip_prefix("/").map_err(io::Error::other)?.to_owned();
        place(&library, &rootfs.join(at))?;
    }
    if Path::new(CERTIFICATES).is_file() {
        place(Path::new(CERTIFICATES), &rootfs.join(&CERTIFICATES[1..]))?;
    }
    Ok(())
}

/// The shared libraries that a program is linked with, and its loader.
fn libraries(program: &Path) -> io::Result<Vec<PathBuf>> {
    let listed = Command::new("ldd").arg(program).output()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let path =
        |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(listed.lines().filter_map(path).collect())
}

fn unit_is_hardened(folder: &Path) -> io::Result<Tally> {
    if !tools::has("systemd-analyze", &["--version"]) {
        println!("SKIPPED: packaging: there is no systemd-analyze on this machine");
        return Ok(Tally::SKIPPED);
    }
    let unit = folder.join("systemd/cloakroom.service");
    // It looks for the program and the manual where they would be installed.
    let text = fs::read_to_string(&unit)?;
    let here = text.replace("/usr/bin/cloakroom", &folder.join("cloakroom").display().to_string());
    fs::write(&unit, here.replace("Documentation=man:cloakroom(1)\n", ""))?;
    let mut verify = Command::new("systemd-analyze");
    let sound = stream(verify.args(["verify", "--man=no"]).arg(&unit))?.success;
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE_MAX]);
    let hardened = stream(security.arg(&unit))?.success;
    Ok([Tally::of(sound), Tally::of(hardened)].into_iter().sum())
}

/// Builds the image and runs the program in it, as the image's user.
fn image_works(image: &Path) -> io::Result<Tally> {
    if !tools::has("buildah", &["--version"]) && !tools::debian_package("buildah")? {
        println!("SKIPPED: packaging: there is no buildah on this machine");
        return Ok(Tally::SKIPPED);
    }
    let buildah = |arguments: &[&str]| {
        let mut command = Command::new("buildah");
        command.args(["--storage-driver", "vfs", "--root"]).arg(image.join("storage"));
        command.arg("--runroot").arg(image.join("run")).args(arguments);
        command
    };
    let mut build = buildah(&["bud", "--isolation", "chroot", "--format", "docker"]);
    build.args(["--tag", "cloakroom-check"]).arg("--file").arg(image.join("Containerfile"));
    if !stream(build.arg(image))?.success {
        return Ok(Tally::FAILED);
    }
    let made = buildah(&["from", "--name", "cloakroom-check", "cloakroom-check"]).output()?;
    let run = ["run", "--isolation", "chroot", "cloakroom-check", "/usr/bin/cloakroom"];
    let mut check = buildah(&run);
    let works = stream(check.args(["config", "check"]))?.success;
    let inspected = buildah(&["inspect", "--type", "image", "cloakroom-check"]).output()?;
    let said = String::from_utf8_lossy(&inspected.stdout).into_owned();
    let as_nobody = said.contains("\"User\": \"65532:65532\"") && said.contains("Healthcheck");
    let tallies = [made.status.success(), works, as_nobody].map(Tally::of);
    stream(&mut buildah(&["rm", "--all"]))?;
    Ok(tallies.into_iter().sum())
}

fn checked(command: &mut Command) -> io::Result<()> {
    match stream(command)?.success {
        true => Ok(()),
        false => Err(io::Error::other(format!("{command:?} failed"))),
    }
}

fn fresh(folder: &Path) -> io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)
}

fn place(file: &Path, at: &Path) -> io::Result<()> {
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(file, at).map(drop)
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let file = entry?.path();
        place(&file, &to.join(file.file_name().unwrap_or_default()))?;
    }
    Ok(())
}
