//! `choria lab down`

use crate::failure::Failure;
use crate::lab::Place;
use crate::lab::directory::Directory;
use crate::lab::processes;
use crate::lab::record::Record;
use crate::output;

pub(crate) fn run(place: &Place) -> Result<u8, Failure> {
    let directory = Directory::existing(place)?;
    let Some(record) = Record::load(&directory)? else {
        directory.remove_secrets()?;
        output::note(&format!("The lab in {} is down already.\n", directory.root().display()));
        return Ok(0);
    };
    let running = record.processes.iter().filter(|process| processes::is_running(process)).count();
    let killed = processes::end(&record.processes, || {});
    directory.remove_secrets()?;
    let how = if killed == 0 { String::new() } else { format!(", {killed} had to be killed") };
    output::note(&format!("Ended {running} processes{how}, and removed the lab's keys and tokens.\n"));
    Ok(0)
}
