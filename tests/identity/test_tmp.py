import asyncio
from storyloom.identity.v1 import tenants_pb2
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
async def test_bypass(own, school):
    await school.root.stub(TenantServiceStub,"identity").SuspendTenant(tenants_pb2.SuspendTenantRequest(id=own.tenant.id))
    await asyncio.sleep(1.5)
    t=await own.admin.stub(TenantServiceStub,"identity").GetMyTenant(tenants_pb2.GetMyTenantRequest(), metadata=(("x-act-in-tenant",own.tenant.id),))
    print("BYPASSED", t.status)
