//! Images for devices, made and read back by the tool that operators use (docs/device-images.md).

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use choria_host::private_file::write_private;
use choria_tests::binary;
use choria_tests::device::{DeviceTls, firmware};
use choria_tests::forge::{self, Key};

struct Bench {
    folder: tempfile::TempDir,
    tls: DeviceTls,
    issuer: String,
}

impl Bench {
    fn new() -> Result<Bench> {
        let folder = tempfile::tempdir()?;
        let (tls, org) = (DeviceTls::new(folder.path())?, Key::generate()?);
        let jwt = forge::token(&forge::provisioning("secret", "nats://192.0.2.1:4223")?, &org);
        write_private(&folder.path().join("provisioning.jwt"), jwt.as_bytes())?;
        Ok(Bench { folder, tls, issuer: org.public() })
    }

    fn image(&self, out: &str, more: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary("xtask"));
        command.current_dir(self.folder.path()).arg("image").arg("--elf").arg(firmware()?).arg("--ca");
        command.arg(&self.tls.ca).args(["--jwt", "provisioning.jwt", "--issuer", &self.issuer, "--out", out]);
        Ok(command.args(more).output()?)
    }

    fn verify(&self, image: &str, more: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary("xtask"));
        command.current_dir(self.folder.path()).args(["verify", "--image", image]);
        Ok(command.args(more).output()?)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn mode(path: &Path) -> Result<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o777)
}

#[test]
fn a_manifest_makes_an_image_for_each_device_twice_the_same() -> Result<()> {
    let bench = Bench::new()?;
    let lines: Vec<String> =
        (1..=60).map(|n| format!("pump{n}.example.net,02:00:00:00:00:{n:02x}")).collect();
    std::fs::write(bench.path("devices.csv"), format!("identity,mac\n{}\n", lines.join("\n")))?;
    let more = [
        "--manifest",
        "devices.csv",
        "--built",
        "1700000000",
        "--format",
        "elf,bin,hex,uf2",
        "--board",
        "rp2040-w5500",
    ];
    let (one, two) = (bench.image("one", &more)?, bench.image("two", &more)?);
    ensure!(code(&one) == 0 && code(&two) == 0, "{one:?}");
    ensure!(one.stdout == two.stdout && one.stdout.split(|b| *b == b'\n').count() == 61, "the tables differ");
    for ending in ["elf", "bin", "hex", "uf2"] {
        let name = format!("pump7.example.net.{ending}");
        let read = |folder: &str| std::fs::read(bench.path(folder).join(&name));
        ensure!(read("one")? == read("two")?, "{name} differs");
        ensure!(mode(&bench.path("one").join(&name))? == 0o600, "others can read {name}");
    }
    for ending in ["elf", "bin"] {
        let image = format!("one/pump7.example.net.{ending}");
        let fine = bench.verify(
            &image,
            &["--jwt", "provisioning.jwt", "--identity", "pump7.example.net", "--issuer", &bench.issuer],
        )?;
        ensure!(code(&fine) == 0, "{fine:?}");
        let other = bench.verify(&image, &["--identity", "pump8.example.net"])?;
        ensure!(code(&other) == 4, "{other:?}");
    }
    // one bit of what was written, and of nothing else
    let image = bench.path("one/pump7.example.net.elf");
    let mut bytes = std::fs::read(&image)?;
    let at = bytes.windows(6).position(|part| part == b"CHOR\x01\x00").unwrap_or_default() + 60;
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1;
    }
    std::fs::write(&image, bytes)?;
    let damaged = bench.verify("one/pump7.example.net.elf", &[])?;
    ensure!(code(&damaged) == 4, "{damaged:?}");
    Ok(())
}

#[test]
fn what_no_device_could_use_is_refused_with_the_reason() -> Result<()> {
    let bench = Bench::new()?;
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let stranger = Key::generate()?.public();
    let foreign = bench.image("out", &["--issuer", &stranger])?;
    ensure!(code(&foreign) != 0, "two issuers: {foreign:?}");
    for (more, reason) in [
        (&["--identity", "a b"][..], "is no identity"),
        (&["--format", "uf2"], "--board"),
        (&["--manifest", "missing.csv"], "missing.csv"),
    ] {
        let refused = bench.image("out", more)?;
        ensure!(code(&refused) == 2 && said(&refused).contains(reason), "{more:?}: {refused:?}");
    }
    std::fs::write(bench.path("twice.csv"), "a.example.net\nA.example.net\n")?;
    let twice = bench.image("out", &["--manifest", "twice.csv"])?;
    ensure!(
        code(&twice) == 2 && said(&twice).contains("twice.csv:2: A.example.net is there twice"),
        "{twice:?}"
    );
    std::fs::write(
        bench.path("devices-ca.pem"),
        "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
    )?;
    let authority = bench.image("out", &[])?;
    ensure!(code(&authority) == 2 && said(&authority).contains("certificate_malformed"), "{authority:?}");
    ensure!(!bench.path("out").exists(), "something was written");
    Ok(())
}

#[test]
fn t_309_release_images_say_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let audit = |elf: &Path, board: &str| -> Result<(i32, String)> {
        let mut command = Command::new(binary("xtask"));
        let output = command.args(["audit", "--board", board, "--elf"]).arg(elf).output()?;
        Ok((code(&output), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let shipped = firmware()?;
    let fine = audit(&shipped, "qemu-lm3s")?;
    ensure!(fine.0 == 0, "{fine:?}");
    // The same calls on a board that has storage and a clock of its own.
    let debugged = audit(&shipped, "rp2040-w5500")?;
    ensure!(debugged.0 != 0 && debugged.1.contains("calls to a debugger"), "{debugged:?}");
    let image = std::fs::read(&shipped)?;
    let sentence = b"the personalised part of this image is damaged";
    let at = image.windows(sentence.len()).position(|part| part == sentence);
    let at = at.ok_or_else(|| anyhow::anyhow!("the sentence to overwrite is not in the image"))?;
    let changed = folder.path().join("changed");
    for (words, reason) in [
        ("index out of bounds: the len", "'index out of bounds'"),
        ("/home/builder/x/y", "'/home/'"),
        ("board/src/main.rs", "the path of a source"),
        ("-----BEGIN PRIVATE KEY-----", "a key or a certificate"),
        ("eyJhbGciOiJFZERTQSJ9.e30", "a token"),
    ] {
        let mut bytes = image.clone();
        let place = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..words.len()));
        place.ok_or_else(|| anyhow::anyhow!("out of the image"))?.copy_from_slice(words.as_bytes());
        std::fs::write(&changed, bytes)?;
        let refused = audit(&changed, "qemu-lm3s")?;
        ensure!(refused.0 != 0 && refused.1.contains(reason), "{words}: {refused:?}");
    }
    choria_rows::row(
        309,
        "audit of the linked firmware: calls to a debugger, words of panics, paths, keys, tokens; the same image with each of them put in",
        "none but the calls to a debugger of the board that has nothing else; each one put in is refused by name",
    );
    Ok(())
}
