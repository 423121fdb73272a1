//! A microcontroller whose image names its broker, and a name server that is wrong, late, or of several minds.

use std::sync::Arc;

use anyhow::Result;
use choria_tests::device::{Device, DeviceTls, HOST, NAME, Personality, firmware_of};
use choria_tests::name_server::{NOBODY, NameServer};
use choria_tests::{Stage, TimeServer, free_port};
use tempfile::TempDir;

/// A hub and a name server.
struct Site {
    names: NameServer,
    stage: Arc<Stage>,
    tls: DeviceTls,
    port: u16,
    folder: TempDir,
}

impl Site {
    fn start() -> Result<Site> {
        let folder = tempfile::tempdir()?;
        let (tls, port) = (DeviceTls::new(folder.path())?, free_port()?);
        let stage = Arc::new(Stage::with_broker_settings(&tls.listener(port))?);
        stage.provisioner()?;
        Ok(Site { names: NameServer::new()?, stage, tls, port, folder })
    }

    /// A blank device that knows its broker by this name; `more` are choices for its image.
    fn device(&self, identity: &str, broker: &str, more: &[&str]) -> Result<Device> {
        let personality = Personality {
            provisioning_jwt: self.stage.provisioning_token()?,
            issuer: self.stage.org.public(),
            ca: self.tls.ca.clone(),
            broker: format!("nats://{broker}:{}", self.port),
            identity: identity.to_owned(),
        };
        let firmware = firmware_of("qemu-lm3s-names")?.display().to_string();
        let choices = [&["--elf", &firmware], more].concat();
        let mut device = Device::with(&self.folder.path().join(identity), &personality, &choices)?;
        device.network(self.names.network());
        Ok(device)
    }
}

#[test]
fn a_name_is_asked_for_again_until_one_of_its_addresses_answers() -> Result<()> {
    let site = Site::start()?;
    let identity = "named.example.net";
    let mut device = site.device(identity, &NAME.to_ascii_uppercase(), &[])?;
    device.start()?;
    device.said_times(&format!("no address name={NAME}\n"), 2)?;
    assert!(!device.console().contains("connected"), "{}", device.console());

    site.names.says(&[NOBODY, HOST.parse()?]);
    device.said("member=true")?;
    device.said_times("connected", 2)?;
    let operator = site.stage.operator("operator", &site.stage.caller("up=operator")?)?;
    operator.hears(&[identity.to_owned()])
}

#[test]
fn a_name_server_that_says_nothing_or_nonsense_holds_nobody_up_for_long() -> Result<()> {
    let site = Site::start()?;
    site.names.is_silent();
    let mut device = site.device("late.example.net", NAME, &[])?;
    device.start()?;
    device.said_times("dial_failed", 1)?;
    assert!(device.console().contains("no address name="), "{}", device.console());

    // what can be read of it all the same leads to nobody
    site.names.says(&[NOBODY]);
    site.names.stutters(3);
    device.said_times("dial_failed", 4)?;
    assert!(!device.console().contains("connected"), "{}", device.console());

    site.names.says(&[HOST.parse()?]);
    device.said_times("connected", 2)
}

#[test]
fn a_time_server_has_a_name_too() -> Result<()> {
    let site = Site::start()?;
    let time = TimeServer::new()?;
    site.names.says(&[HOST.parse()?]);
    let asked = format!("time.fleet.test:{}", time.port());
    let mut device = site.device("clockless.example.net", NAME, &["--time-server", &asked])?;
    device.without_clock()?;
    device.start()?;
    device.said("time 1")?;
    device.said_times("connected", 2)
}

/// A name server cannot make anybody the broker: the name that was asked for has to be in the certificate.
#[test]
fn who_answers_at_the_address_has_to_have_the_name() -> Result<()> {
    let site = Site::start()?;
    site.names.says(&[HOST.parse()?]);
    let mut device = site.device("misled.example.net", "other.fleet.test", &[])?;
    device.start()?;
    device.said_times("tls refused reason=certificate_name", 2)?;
    assert!(!device.console().contains("connected"), "{}", device.console());
    Ok(())
}
