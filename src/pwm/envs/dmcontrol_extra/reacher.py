"""Reacher with an arm of three links, built by editing the stock XML."""

from __future__ import annotations

from xml.etree import ElementTree

from dm_control.rl import control
from dm_control.suite import reacher

# Lengths in metres, angles in degrees, as in the stock file.
_ARM = """
<body name="arm0" pos="0 0 .01">
  <geom name="arm0" type="capsule" fromto="0 0 0 .09 0 0" size=".01" material="self"/>
  <joint name="shoulder0"/>
  <body name="arm1" pos=".09 0 0">
    <geom name="arm1" type="capsule" fromto="0 0 0 .09 0 0" size=".01" material="self"/>
    <joint name="shoulder1" limited="true" range="-80 80"/>
    <body name="hand" pos=".09 0 0">
      <geom name="hand" type="capsule" fromto="0 0 0 .10 0 0" size=".01" material="self"/>
      <joint name="wrist" limited="true" range="-80 80"/>
      <body name="finger" pos=".09 0 0">
        <camera name="hand" pos="0 0 .2" mode="track"/>
        <geom name="finger" type="sphere" size=".01" material="effector"/>
      </body>
    </body>
  </body>
</body>
"""
_JOINTS = ("shoulder0", "shoulder1", "wrist")


def three_link_xml(stock_xml: str | bytes) -> str:
    """Replace the arm and the motors of the stock reacher XML by those of the three-link arm.

    Raises:
        ValueError: the XML has no body "arm" in its world or no actuators, so it is not the stock
            file of the pinned dm_control.
    """
    root = ElementTree.fromstring(stock_xml)
    world, actuators = root.find("worldbody"), root.find("actuator")
    arm = None if world is None else world.find("body[@name='arm']")
    if world is None or arm is None or actuators is None:
        raise ValueError("dm_control's reacher.xml is not as expected: no arm or no actuators")
    place = list(world).index(arm)
    world.remove(arm)
    world.insert(place, ElementTree.fromstring(_ARM))
    actuators.clear()
    for joint in _JOINTS:
        ElementTree.SubElement(actuators, "motor", name=joint, joint=joint)
    root.set("model", "three-link planar reacher")
    return ElementTree.tostring(root, encoding="unicode")


def three_links(target_size: float, seed: int) -> control.Environment:
    """Construct reacher-three-easy (target radius .05 m) or reacher-three-hard (.015 m)."""
    stock_xml, assets = reacher.get_model_and_assets()
    physics = reacher.Physics.from_xml_string(three_link_xml(stock_xml), assets)
    task = reacher.Reacher(target_size=target_size, random=seed)
    return control.Environment(physics, task, time_limit=20)
