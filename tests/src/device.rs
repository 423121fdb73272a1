//! Microcontrollers of a test: QEMU runs the firmware of one of `agent-embedded/boards/qemu-*`, personalised for each device.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use choria_host::private_file::write_private;

use crate::process::{Running, binary, wait_until};

/// Longest wait for a device to get somewhere: a provisioner that it has answered too late comes back after a minute.
const PATIENCE: Duration = Duration::from_secs(180);
/// How a device in QEMU reaches this machine's loopback address.
pub const HOST: &str = "10.0.2.2";
/// A name of the hub, for devices with a name server.
pub const NAME: &str = "hub.fleet.test";

/// What a device is given at build time.
#[derive(Debug, Clone)]
pub struct Personality {
    pub provisioning_jwt: String,
    /// 64 hex digits.
    pub issuer: String,
    /// Certificate of the authority that it trusts.
    pub ca: PathBuf,
    pub broker: String,
    pub identity: String,
}

impl Personality {
    /// Runs `cargo xtask image` with it; the image and its inputs go to `folder`. The exit code and what was said.
    pub fn personalise(&self, folder: &Path, more: &[&str]) -> Result<(i32, String)> {
        std::fs::create_dir_all(folder)?;
        let jwt = folder.join("provisioning.jwt");
        write_private(&jwt, self.provisioning_jwt.as_bytes())?;
        let output = Command::new(binary("xtask"))
            .args(["image", "--issuer", &self.issuer, "--url", &self.broker, "--identity", &self.identity])
            .args(if more.contains(&"--elf") {
                Vec::new()
            } else {
                vec!["--elf".into(), firmware()?.into_os_string()]
            })
            .arg("--jwt")
            .arg(jwt)
            .arg("--ca")
            .arg(&self.ca)
            .arg("--out")
            .arg(folder)
            .args(more)
            .output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned()))
    }
}

/// One device: its folder is its flash.
#[derive(Debug)]
pub struct Device {
    folder: PathBuf,
    image: String,
    running: Option<Running>,
    /// Starts so far; each has a console of its own.
    starts: u32,
    /// Where its time is that of its instructions: how QEMU counts them.
    counted: Option<&'static str>,
    /// What QEMU is told about its network.
    network: Vec<String>,
    /// QEMU's name of the board.
    machine: &'static str,
}

impl Device {
    /// Personalises the firmware, also with a token that is over or somebody else's; nothing runs yet.
    pub fn new(folder: &Path, personality: &Personality) -> Result<Device> {
        Device::with(folder, personality, &[])
    }

    /// The same with more choices for its image.
    pub fn with(folder: &Path, personality: &Personality, more: &[&str]) -> Result<Device> {
        let (code, said) = personality.personalise(folder, &[&["--force"], more].concat())?;
        ensure!(code == 0, "xtask image: {code}: {said}");
        Ok(Device::of(folder, format!("{}.elf", personality.identity)))
    }

    /// One whose firmware nobody has personalised.
    pub fn unpersonalised(folder: &Path, board: &str) -> Result<Device> {
        std::fs::copy(firmware_of(board)?, folder.join(board))?;
        Ok(Device::of(folder, board.to_owned()))
    }

    fn of(folder: &Path, image: String) -> Device {
        Device {
            folder: folder.to_path_buf(),
            image,
            running: None,
            starts: 0,
            counted: None,
            network: ["-nic", "user"].map(str::to_owned).to_vec(),
            machine: "lm3s6965evb",
        }
    }

    /// From its next start on it is this board of QEMU's.
    pub fn machine(&mut self, machine: &'static str) {
        self.machine = machine;
    }

    /// Damages what it was given.
    pub fn flip_a_bit(&self) -> Result<()> {
        let image = self.folder.join(&self.image);
        let mut bytes = std::fs::read(&image)?;
        let at =
            bytes.windows(6).position(|part| part == b"CHOR\x01\x00").context("it was given nothing")? + 60;
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1;
        }
        Ok(std::fs::write(image, bytes)?)
    }

    /// Power on.
    pub fn start(&mut self) -> Result<()> {
        self.starts += 1;
        let mut command = Command::new("qemu-system-arm");
        command.args(["-M", self.machine, "-nographic", "-monitor", "none", "-serial", "null"]);
        command.args(["-semihosting-config", "enable=on,target=native", "-kernel", &self.image]);
        command.args(&self.network);
        if let Some(how) = self.counted {
            command.args(["-icount", how]);
        }
        let running = Running::start(command.current_dir(&self.folder), &self.console_file()).context(
            "qemu-system-arm: install it with `apt-get install --no-install-recommends qemu-system-arm`",
        )?;
        self.running = Some(running);
        Ok(())
    }

    /// Power off, at once.
    pub fn cut(&mut self) -> Result<()> {
        match self.running.take() {
            Some(mut running) => running.kill(),
            None => Ok(()),
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.running.as_mut().is_some_and(Running::is_running)
    }

    fn console_file(&self) -> PathBuf {
        self.folder.join(format!("console.{}", self.starts))
    }

    /// What it has printed since it was last started.
    pub fn console(&self) -> String {
        std::fs::read_to_string(self.console_file()).unwrap_or_default()
    }

    /// Waits until its console says something.
    pub fn said(&self, text: &str) -> Result<()> {
        self.said_times(text, 1)
    }

    /// Waits until its console has said something so often.
    pub fn said_times(&self, text: &str, times: usize) -> Result<()> {
        wait_until(text, PATIENCE, || self.console().matches(text).count() >= times)
            .with_context(|| format!("the console says:\n{}", self.console()))
    }

    /// The most that its stack has held until it last started anew, bytes; it says so when it does.
    pub fn stack(&self) -> Result<u32> {
        let console = self.console();
        let line = console.lines().rfind(|line| line.contains("stack ")).context("it never started anew")?;
        let number = line.split_once("stack ").and_then(|(_, rest)| rest.split(' ').next());
        Ok(number.context("no number")?.parse()?)
    }

    /// A value of its store; `None` when it has none.
    pub fn stored(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.folder.join(format!("store.{name}"))).ok()
    }

    /// A file of its folder.
    pub fn file(&self, name: &str) -> Result<Vec<u8>> {
        Ok(std::fs::read(self.folder.join(name))?)
    }

    /// Its source of random numbers fails from now on, or works again.
    pub fn has_entropy(&self, works: bool) -> Result<()> {
        let file = self.folder.join("entropy.none");
        Ok(if works { std::fs::remove_file(file) } else { std::fs::write(file, b"") }?)
    }

    /// From its next start on 16 ns of its time are one instruction.
    pub fn counts_instructions(&mut self) -> Result<()> {
        self.counted = Some("shift=4");
        Ok(())
    }

    /// From its next start on 128 ns of its time are one instruction, and what it waits for is there at once. Not for a device
    /// that talks to anybody, whose time is another.
    pub fn waits_for_nothing(&mut self) {
        self.counted = Some("shift=7,sleep=off");
    }

    /// From its next start on it is on this network: arguments of QEMU.
    pub fn network(&mut self, arguments: Vec<String>) {
        self.network = arguments;
    }

    /// From its next start on its main loop stops before it has touched its network.
    pub fn hangs(&self) -> Result<()> {
        Ok(std::fs::write(self.folder.join("hang"), b"")?)
    }

    /// Its NOR flash, with all that is on it, is gone, and cannot be opened.
    pub fn breaks_its_flash(&self) -> Result<()> {
        let flash = self.folder.join("flash.nor");
        std::fs::remove_file(&flash)?;
        Ok(std::fs::create_dir(flash)?)
    }

    /// From its next start on it has no clock of its own.
    pub fn without_clock(&self) -> Result<()> {
        Ok(std::fs::write(self.folder.join("clock.none"), b"")?)
    }

    /// Ends QEMU within a write of its store: `operation` counts the steps of all writes from the start.
    pub fn cut_at(&self, operation: u32) -> Result<()> {
        Ok(std::fs::write(self.folder.join("store.cut"), [u8::try_from(operation)?])?)
    }

    pub fn never_cut(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.folder.join("store.cut"))?)
    }
}

/// The firmware of most tests.
pub fn firmware() -> Result<PathBuf> {
    firmware_of("qemu-lm3s")
}

/// The firmware that `cargo xtask qemu --build` has made of a board, beside this test's own products.
pub fn firmware_of(board: &str) -> Result<PathBuf> {
    let mut folder = std::env::current_exe()?;
    while folder.pop() {
        let path = folder.join("embedded/thumbv7m-none-eabi/release").join(board);
        if path.exists() {
            return Ok(path);
        }
        if folder.ends_with("target") {
            break;
        }
    }
    bail!("there is no firmware for QEMU: run `cargo xtask qemu --build` first")
}

/// A certificate for devices' listeners and the authority that made it: Ed25519, for [`HOST`] and [`NAME`].
#[derive(Debug)]
pub struct DeviceTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Certificate of the authority.
    pub ca: PathBuf,
}

impl DeviceTls {
    /// Writes both below `folder`.
    pub fn new(folder: &Path) -> Result<DeviceTls> {
        use rcgen::{
            BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519,
        };
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = KeyPair::generate_for(&PKCS_ED25519)?;
        let ca = folder.join("devices-ca.pem");
        write_private(&ca, params.self_signed(&authority)?.pem().as_bytes())?;
        let issuer = Issuer::new(params, authority);
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let leaf = CertificateParams::new([HOST, "127.0.0.1", NAME].map(str::to_owned).to_vec())?
            .signed_by(&key, &issuer)?;
        let made = DeviceTls { certificate: folder.join("devices.pem"), key: folder.join("devices.key"), ca };
        write_private(&made.certificate, leaf.pem().as_bytes())?;
        write_private(&made.key, key.serialize_pem().as_bytes())?;
        Ok(made)
    }

    /// Lines of a broker's configuration for a listener on this port.
    pub fn listener(&self, port: u16) -> String {
        format!(
            "plugin.choria.network.constrained.port = {port}\nplugin.choria.network.constrained.certificate = {}\n\
             plugin.choria.network.constrained.key = {}\n",
            self.certificate.display(),
            self.key.display()
        )
    }
}
